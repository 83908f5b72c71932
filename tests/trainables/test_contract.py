"""What one's own pruner or algorithm gets wrong is one line that names the file and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import HOPPER
from trainables import plugins
from trainables.algorithms import bc
from trainables.errors import UserError
from trainables.plugins import contract
from trainables.pruners import snip
from trainables.run import run_stack
from trainables.trial import Stack, Trial

pytestmark = pytest.mark.usefixtures("hopper")
SHAPES = "it has to return one tensor of floats per layer, of the shapes (1, 1, 8, 11), (1, 1, 3, 8)"


def trained() -> None:
    small = {"hidden": (8,), "batch_size": 16}
    trial = Trial(dataset=HOPPER, algorithm="bc", pruner="snip", sparsity=0.5, updates=4, evaluations=1, episodes=1, hyper=small)
    list(run_stack(Stack((trial,)), None))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda scores: None, "saliency returned None"),
        (lambda scores: 1.0, "saliency returned a float"),
        (lambda scores: scores[0], "saliency returned a tensor of float32 of the shape (1, 1, 8, 11)"),
        (lambda scores: dict(enumerate(scores)), "saliency returned a dict"),
        (lambda scores: scores[:1], "saliency returned tensors of the shapes (1, 1, 8, 11)"),
        (lambda scores: [scores[0].sum(-1), scores[1]], "saliency returned tensors of the shapes (1, 1, 8), (1, 1, 3, 8)"),
        (lambda scores: [layer.long() for layer in scores], "saliency returned a tensor of int64 of the shape (1, 1, 8, 11) for a layer"),
        (lambda scores: [np.ones((8, 11)), scores[1]], "saliency returned a ndarray for a layer"),
    ],
)
def test_a_pruners_scores(returned: Callable[[list[torch.Tensor]], Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = snip.saliency
    monkeypatch.setattr(snip, "saliency", lambda network: returned(usual(network)))
    with pytest.raises(UserError) as caught:
        trained()
    assert str(caught.value) == f"pruner 'snip': {said}; {SHAPES}"


def test_scores_may_be_given_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = snip.saliency
    monkeypatch.setattr(snip, "saliency", lambda network: (layer for layer in usual(network)))
    trained()


def test_a_pruners_file_without_a_function_is_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.py").write_text("")
    files = plugins._files
    monkeypatch.setattr(plugins, "_files", lambda folder: files(folder) | ({"empty": tmp_path / "empty.py"} if folder == "pruners" else {}))
    monkeypatch.setattr(plugins, "names", lambda folder: tuple(sorted(plugins._files(folder))))
    plugins.defines.cache_clear()
    with pytest.raises(UserError, match=r"^pruners/empty\.py has no function saliency\(network\)"):
        contract.pruner("empty")
    for name in plugins.names("pruners"):
        if name != "empty":
            contract.pruner(name)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "LEARNING_RATES",
            {"actor": "rate"},
            "the learning rate of 'actor' is 'rate', which Hyper does not have; it has: hidden, batch_size",
        ),
        ("LEARNING_RATES", {"policy": "learning_rate"}, "LEARNING_RATES names 'policy', which networks() does not make; it makes: actor"),
        ("LEARNING_RATES", {}, "LEARNING_RATES lacks the network 'actor'"),
        ("LOSSES", {"aktor": bc.actor_loss}, "LOSSES names 'aktor', which networks() does not make; it makes: actor"),
        ("LOSSES", {}, "LOSSES lacks the network 'actor'"),
        ("NORMALIZE", 1, "NORMALIZE is 1; write NORMALIZE = True or NORMALIZE = False, since planning reads it without running the file"),
        ("NORMALIZE", False, "NORMALIZE is False; write NORMALIZE = True"),
        ("TARGETS", ("criic",), "TARGETS names 'criic', which networks() does not make; it makes: actor"),
        (
            "update",
            lambda agent, batch: bc.actor_loss(agent, batch),
            "update returned a tensor of float32 of the shape (1,); expected losses",
        ),
        (
            "update",
            lambda agent, batch: {"actor_loss": bc.actor_loss(agent, batch).mean()},
            "update returned a tensor of float32 of the shape () for 'actor_loss'; expected losses by name, each with a number per "
            "member: shape (1,)",
        ),
        ("update", lambda agent, batch: agent.minimize(aktor=bc.actor_loss(agent, batch)), "agent.minimize got a loss for 'aktor'"),
        (
            "update",
            lambda agent, batch: agent.minimize(actor=bc.actor_loss(agent, batch).mean()),
            "agent.minimize got a tensor of float32 of the shape () for 'actor'; expected losses",
        ),
        (
            "act",
            lambda agent, seen: agent.actor(seen)[..., 0],
            "act returned a tensor of float32 of the shape (1, 1); expected a tensor [members, observations, actions], here (1, 1, 3)",
        ),
        ("act", lambda agent, seen: None, "act returned None"),
    ],
)
def test_an_algorithms_file(name: str, value: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bc, name, value)
    with pytest.raises(UserError) as caught:
        trained()
    text = str(caught.value)
    assert text.startswith("agent.minimize got a loss" if "got a loss for" in said else f"algorithms/bc.py: {said[:40]}"), text
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["act", "update", "LOSSES", "TARGETS", "NORMALIZE"])
def test_what_an_algorithms_file_lacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(bc, name)
    with pytest.raises(UserError, match=rf"^algorithms/bc\.py has no {name}"):
        trained()
