"""Wrappers that a dataset declares around its environment (`additional_wrappers` of gymnasium's EnvSpec): which are kept, and how they are
put on. A wrapper is written as {"entry_point": "gymnasium.wrappers:RescaleAction", "kwargs": {...}}, as a WrapperSpec without its name.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainables.environments._modules import check_named
from trainables.errors import UserError, one_line

if TYPE_CHECKING:
    import gymnasium

KEY = "additional_wrappers"  # among the settings of an environment
GYMNASIUM = "gymnasium.wrappers"
FLATTEN = {"entry_point": f"{GYMNASIUM}:FlattenObservation", "kwargs": {}}
# They record or draw what happens, and change nothing of it.
WATCHING = {"RecordVideo", "RecordEpisodeStatistics", "HumanRendering", "RenderCollection", "PassiveEnvChecker", "OrderEnforcing"}
# They change what is observed or how an action is written, so that returns mean what they mean without them.
NEUTRAL = {
    *("ClipAction", "RescaleAction", "DtypeObservation", "FilterObservation", "FlattenObservation", "ReshapeObservation"),
    *("RescaleObservation", "TimeAwareObservation", "FrameStackObservation"),
}
STATISTICS = "it normalizes by running statistics, which the dataset does not hold"
REFUSED = {
    "NormalizeObservation": STATISTICS,
    "NormalizeReward": STATISTICS,
    "Autoreset": "it begins the next episode by itself, so episodes have no end",
}


def listed(declared: Sequence[Mapping[str, Any]], environment: str) -> list[dict[str, Any]]:
    """The wrappers of an EnvSpec's JSON, innermost first, as they are written here, without those that only watch.

    Gymnasium's own are named by their class alone: their files have moved between its versions. Raises UserError, with the wrapper's name,
    for one whose arguments were not recorded, and for one that could not mean the same in an evaluation."""
    written = []
    for wrapper in declared:
        module, _, name = str(wrapper.get("entry_point", "")).partition(":")
        if module == GYMNASIUM or module.startswith(f"{GYMNASIUM}."):
            module = GYMNASIUM
            if name in WATCHING:
                continue
        if wrapper.get("kwargs") is None:
            raise _refused(
                name or str(wrapper), environment, "its arguments were not recorded (it is not a gymnasium RecordConstructorArgs)"
            )
        if module == GYMNASIUM and name in REFUSED:
            raise _refused(name, environment, REFUSED[name])
        written.append({"entry_point": f"{module}:{name}", "kwargs": dict(wrapper["kwargs"])})
    return written


def after(prior: Sequence[Any], wrappers: list[dict[str, Any]], environment: str) -> list[dict[str, Any]]:
    """The wrappers without those that the environment has from its registration, its WrapperSpecs `prior`; UserError where they differ."""
    own = listed(
        json.loads(json.dumps([{"entry_point": each.entry_point, "kwargs": each.kwargs} for each in prior], default=str)), environment
    )
    if wrappers[: len(own)] != own:
        raise UserError(f"environment {environment!r} is registered with the wrappers {own} here, and was recorded with {wrappers}")
    return wrappers[len(own) :]


def put_on(env: gymnasium.Env[Any, Any], wrappers: Sequence[Mapping[str, Any]], environment: str) -> gymnasium.Env[Any, Any]:
    """The environment in its wrappers; raises UserError, with the wrapper's name, for one that cannot be made."""
    import gymnasium

    for wrapper in wrappers:
        module, _, name = str(wrapper["entry_point"]).partition(":")
        what = f"wrapper {name} of environment {environment!r}"
        if module != GYMNASIUM:
            check_named(module, what)
        try:
            made = getattr(importlib.import_module(module), name)
            if not (isinstance(made, type) and issubclass(made, gymnasium.Wrapper)):
                raise TypeError(f"{module}:{name} is not a gymnasium.Wrapper")
            with warnings.catch_warnings():  # of precision, say
                warnings.simplefilter("ignore")
                env = made(env, **wrapper["kwargs"])
        except Exception as error:  # a wrapper's code may raise anything
            given = f" with {wrapper['kwargs']}" if wrapper["kwargs"] else ""
            raise UserError(f"{what} cannot be made{given}: {type(error).__name__}: {one_line(error)}") from None
    return env


def neutral(wrappers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether returns mean the same as without the wrappers."""
    return all(str(each["entry_point"]) in {f"{GYMNASIUM}:{name}" for name in NEUTRAL} for each in wrappers)


def _refused(name: str, environment: str, why: str) -> UserError:
    return UserError(f"wrapper {name} of environment {environment!r} cannot be made again: {why}")
