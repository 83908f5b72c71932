"""Names that hold HTML, Markdown or mathematics: whoever can write to MLflow chooses what the report and MLflow's page show."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.__main__ import main
from service.delivery.export_readme import readme
from service.ledger.ledger import Event
from service.tracking import notes
from service.tracking.runs import NOTE, Tracking
from tests.service.results.report.study import ship, spool
from trainables.policy.policy import Policy
from trainables.trial import Trial

from .conftest import scores
from .test_report import Page

HTML = '<b onclick=alert(1)>"><img src=x onerror=alert(1)>'
DATASET = f"{HTML}/hopper/`<script>alert(1)</script>`\n\n```\n# $x_{{$|\\input{{x}}-v0"
SWEEP = "smoke"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in MLflow on a dataset that is called like that, with three trials, one of which diverged."""
    folder = tmp_path_factory.mktemp("names")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        trials = [Trial(dataset=DATASET, algorithm="bc", pruner=p, sparsity=s, updates=1000, evaluations=4) for p, s in PLACES]
        states = [(trial, spool(folder, trial, scores(50.0 + number))) for number, trial in enumerate(trials)]
        ship(folder, SWEEP, states, Tracking(folder))
    return folder


PLACES = (("dense", 0.0), ("snip", 0.95), ("random_erk", 0.95))


def test_the_page_shows_names_as_text(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", SWEEP, "--storage", str(storage), "--to", str(storage / "report")]) == 0
    text = (storage / "report" / "page.html").read_text()
    found = Page()
    found.feed(text)
    assert found.open == []
    assert found.loads == ["script"], "the page's own, which is in it"
    assert text.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in text
    for image in (storage / "report" / "figures").glob("*.svg"):
        assert "<script" not in image.read_text()
    table = (storage / "report" / "table.tex").read_text()
    assert table.count("\\\\\n") == 4, "a head and three rows"
    assert "\\input" not in table


def test_notes_show_names_as_text(storage: Path) -> None:
    tracking = Tracking(storage)
    for run in [run for kind in ("trial", "sweep") for run in tracking._search({"winnow.kind": kind})]:
        note = run.data.tags[NOTE]
        outside = "".join(note.split("```")[::2])
        assert note.count("```") % 2 == 0
        assert note.count("\n```") == note.count("```"), "fences are lines of their own"
        assert not [line for line in outside.splitlines() if line.startswith("#")]
        assert "<" not in without_code(outside)
    assert "<" not in without_code(notes.of_sweep(HTML, [], table="").split("```")[0])
    event = Event(key="k", state="leased", detail={})
    note = notes.of_trial(Trial(dataset=DATASET), event, [{"kind": "attempt", "revision": "abc\n```\n# x"}])
    assert note.count("```") == 2


def test_a_readme_shows_names_as_text(tmp_path: Path) -> None:
    import numpy as np

    trial = Trial(dataset=DATASET)
    lineage = {
        "name": trial.name, "key": trial.key, "trial": trial.to_json(), "environment": HTML, "scores": {"last": {}, "final": {}},
        "code": {"revision": HTML},
    }  # fmt: skip
    layers = ((np.ones((1, 1), np.float32), np.zeros(1, np.float32)),)
    policy = Policy(layers, "tanh", {})
    text = readme(lineage, policy, "compact")
    assert text.count("```") == 2
    assert [line for line in text.splitlines() if line.startswith("#")] == [text.splitlines()[0]]
    assert "<" not in without_code("".join(text.split("```")[::2]))


def without_code(text: str) -> str:
    """Markdown without what stands between backticks on a line."""
    return "\n".join("".join(line.split("`")[::2]) for line in text.splitlines())
