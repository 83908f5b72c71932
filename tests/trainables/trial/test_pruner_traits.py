"""Traits are read from a pruner's source, and are those that its module has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainables import plugins
from trainables.errors import UserError
from trainables.trial.pruner_traits import PrunerTraits, traits_of

DEFAULT = PrunerTraits(
    uses_losses=True,
    needs_chain=False,
    in_rounds=False,
    regrows=False,
    has_budgets=False,
    even_budgets=False,
    during_training=False,
    grows=False,
    rescores=False,
    rewinds=False,
    shrinks=False,
)


@pytest.mark.parametrize("pruner", plugins.names("pruners"))
def test_traits_are_what_the_module_defines(pruner: str) -> None:
    module, traits = plugins.load("pruners", pruner), traits_of(pruner)
    assert traits.in_rounds == hasattr(module, "schedule")
    assert traits.needs_chain == getattr(module, "CHAIN", False)
    assert traits.regrows == getattr(module, "REGROWS", False)
    assert traits.has_budgets == hasattr(module, "budgets")
    assert traits.during_training == hasattr(module, "mask_schedule")
    assert traits.shrinks == hasattr(module, "shrink")
    assert traits.even_budgets == getattr(module, "EVEN", False)
    assert traits.at_initialization == (not hasattr(module, "mask_schedule") and not hasattr(module, "shrink"))
    assert traits.grows == hasattr(module, "growth")
    assert traits.rescores == getattr(module, "RESCORES", False)
    assert traits.rewinds == getattr(module, "REWINDS", False)
    assert traits.starts_sparse == (traits.at_initialization or traits.grows or traits.rescores)
    assert traits.uses_losses == (not hasattr(module, "shrink") and not getattr(module, "WITHOUT_LOSS", False))
    if not traits.starts_sparse:
        assert not traits.uses_losses, "nothing is scored before training"


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("def saliency(network): ...", {}),
        ("def saliency(network): ...\nWITHOUT_LOSS = True", {"uses_losses": False}),
        ("def saliency(network): ...\nWITHOUT_LOSS = False", {}),
        ("def saliency(network): ...\nCHAIN = True", {"needs_chain": True}),
        ("from trainables.pruners.synflow import schedule\ndef saliency(network): ...", {"in_rounds": True}),
        ("schedule = other.schedule\nREGROWS = True", {"in_rounds": True, "regrows": True}),
        ("WITHOUT_LOSS = True\ndef budgets(spec, density): ...\ndef mask_schedule(updates): ...",
         {"uses_losses": False, "has_budgets": True, "during_training": True}),
        ("def mask_schedule(updates): ...\ndef growth(network): ...", {"during_training": True, "grows": True}),
        ("EVEN = True\nbudgets = ranking.even", {"has_budgets": True, "even_budgets": True}),
        ("RESCORES = True\ndef mask_schedule(updates): ...", {"during_training": True, "rescores": True}),
        ("def shrink(spec, density): ...", {"uses_losses": False, "shrinks": True}),
    ],
)  # fmt: skip
def test_a_file_is_read_and_not_imported(source: str, changed: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pruners").mkdir()
    (tmp_path / "pruners" / "mine.py").write_text(f"raise SystemExit('imported')\n{source}\n")
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    for cached in ("_files", "names"):
        monkeypatch.setattr(plugins, cached, getattr(plugins, cached).__wrapped__)
    monkeypatch.setattr(plugins, "defines", plugins.defines.__wrapped__)
    assert traits_of.__wrapped__("mine") == PrunerTraits(**(vars(DEFAULT) | changed))
    assert "trainables.pruners.mine" not in sys.modules


def test_an_unknown_pruner_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"snap.*snip"):
        traits_of("snap")
