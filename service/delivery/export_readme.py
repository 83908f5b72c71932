"""The README of an exported policy: what it is, three lines of code that use it, the other files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.terminal import markdown
from trainables.policy.policy import Policy

USES = {
    "compact": (
        "It needs numpy and safetensors.",
        'from winnow_policy import load\npolicy = load("policy.safetensors")\naction = policy(observation)',
    ),
    "onnx": (
        "It needs onnxruntime; `observation` is a batch, float32.",
        'import onnxruntime\nsession = onnxruntime.InferenceSession("policy.onnx")\n'
        'action = session.run(["action"], {"observation": observation})[0]',
    ),
    "torch": (
        "It needs torch and safetensors; `observation` is a float32 tensor. Removed weights are zeros.",
        'from winnow_policy import load\npolicy = load("policy.safetensors")\naction = policy(observation)',
    ),
}
FILES = {
    "compact": "| policy.safetensors | the kept weights, without units that cannot matter |\n| winnow_policy.py | loads it |",
    "onnx": "| policy.onnx | observation [batch, O] in, action [batch, A] out |",
    "torch": "| policy.safetensors | the state dict, removed weights as zeros |\n| winnow_policy.py | the module, and how to load it |",
}


def readme(lineage: Mapping[str, Any], policy: Policy, format: str) -> str:
    """Markdown; the tests run its one ```python block."""
    trial, scores = lineage["trial"], lineage["scores"]
    kept, total = sum(int((weight != 0).sum()) for weight, _ in policy.layers), sum(weight.size for weight, _ in policy.layers)
    final = f", and of {trial['final_episodes']} final episodes: {_listed(scores['final'])}" if scores["final"] else ""
    needs, code = USES[format]
    near = "1e-6" if policy.network == "mlp" else "1e-5"
    environment, dataset = markdown.plain(lineage["environment"]), markdown.code(trial["dataset"])
    return f"""# {markdown.plain(lineage["name"])}

A policy for {environment}, trained by {trial["algorithm"]} on {dataset} for {trial["updates"]:,} updates.
{kept:,} of its {total:,} weights are not zero ({100 * kept / total:.3g} %; pruner: {trial["pruner"]}). Last evaluation, mean of
{trial["episodes"]} episodes: {_listed(scores["last"]) or "not evaluated"}{final}.

Run this in the folder, or with the folder on `PYTHONPATH`. {needs}

```python
{code}
```

Observations ({policy.sizes[0]} numbers) and actions ({policy.sizes[-1]}) are in the environment's own units: the scaling is part of the
policy. Actions are the trained policy's to {near}; chaotic physics makes other episodes of even that.

| file | holds |
|---|---|
{FILES[format]}
| normalizer.json | the scaling as numbers: a network sees shift + scale x observation, an action is (output - shift) / scale |
| masks.json | what the masks are: densities, live units and inputs |
| lineage.json | trial, dataset and its hash, calibration, seeds, code, every evaluation |

Made by Winnow from trial {lineage["key"]}, code {markdown.plain(str(lineage["code"]["revision"]))}.
"""


def _listed(means: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.{2 if name == 'success_rate' else 1}f}" for name, value in means.items())
