"""A report over a small study in a real MLflow on sqlite: every cell is what it should be, and what is not there is said."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import math
import re
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.__main__ import main
from service.results.cells import tasks_of
from service.results.outcomes import MISSING
from service.results.report import build
from service.results.report.build import make
from service.results.report.drawing import FIGURES
from service.results.report.page import ABOUT, style
from service.results.report.palette import COLOURS
from service.results.report.style import TWO_COLUMNS, Panel, sheets
from service.results.runs import Run
from service.storage import paths
from service.tracking.runs import Tracking
from tests.service.results.report.conftest import scores, trial
from tests.service.results.report.study import ship, spooled_together

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow's own use of a newer SQLAlchemy


def cells(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "cells.csv").open() as file:
        return {(row["environment"], row["method"], row["sparsity"]): row for row in csv.DictReader(file)}


def test_cells_hold_last_best_tail_and_final_apart(made: Path) -> None:
    dense = cells(made)["hopper", "dense", "0.0"]
    assert [float(dense[name]) for name in ("n", "mean", "best", "tail", "final")] == [2, 90, 110, 95, 92]
    assert (float(dense["mean_low"]), float(dense["mean_high"])) == pytest.approx((90 - 127.06, 90 + 127.06), abs=0.01), "80 and 100"
    assert cells(made)["walker2d", "dense", "0.0"]["final"] == "", "none were asked for"
    assert "final: 20 other episodes of the last policy" in (made / "table.txt").read_text()
    snip = cells(made)["hopper", "snip", "0.95"]
    assert float(snip["retained"]) == pytest.approx(89 / 90)
    assert (snip["retained_low"], snip["retained_high"]) == ("", ""), "by 80 and 100, dense may be at 0"
    assert float(snip["improvement"]) == 0.25
    assert float(snip["return"]) == pytest.approx(30 * 89)
    assert float(snip["return_high"]) == pytest.approx(30 * (89 + 127.062), abs=0.1)
    assert (snip["pairs"], snip["unpaired"]) == ("2", "")


def test_a_trials_row_and_its_curve_have_every_number_by_its_name(made: Path) -> None:
    import pyarrow.parquet

    rows = {name: pyarrow.parquet.read_table(made / f"{name}.parquet").to_pylist() for name in ("trials", "curves")}
    own = trial("snip", 0.95, 1)  # whose last score is 99
    (row,) = [row for row in rows["trials"] if row["key"] == own.key]
    assert [row[name] for name in ("seed", "update", "last", "best", "tail", "final", "return")] == [1, 1000, 99, 119, 104, 101, 30 * 99]
    curve = [row for row in rows["curves"] if row["key"] == own.key]
    assert [(at["update"], at["score"]) for at in curve] == [(250, 69), (500, 119), (750, 109), (1000, 99)]
    assert [at["seconds"] for at in curve] == pytest.approx([2.5, 5.0, 7.5, 10.0]), "100 updates a second"
    assert [at["flops"] / curve[0]["flops"] for at in curve] == pytest.approx([1, 2, 3, 4])
    (failed,) = [row for row in rows["trials"] if row["outcome"] == "failed: divergence"]
    assert (failed["key"], failed["update"]) == (trial("random_erk", 0.95, 1).key, 0)
    assert math.isnan(failed["last"])


def test_absent_seeds_are_told_and_never_averaged_away(made: Path) -> None:
    found = cells(made)
    assert (found["hopper", "random_erk", "0.95"]["absent"], found["hopper", "random_erk", "0.95"]["n"]) == ("1 failed: divergence", "1")
    assert (found["hopper", "snip", "0.99"]["absent"], found["hopper", "snip", "0.99"]["planned"]) == ("1 missing", "2")
    text = (made / "table.txt").read_text()
    over = text[text.index("over tasks") :]
    # Without a task where every seed has a score there are no numbers, but it is said what was left out.
    assert re.search(r"Random \(ERK\) 95 %  0  +hopper-expert BC \(1 failed: divergence\), walker2d-medium BC \(not in the sweep\)", over)
    assert re.search(r"SNIP 99 %  +0  +hopper-expert BC \(1 missing\), walker2d-medium BC \(not in the sweep\)", over)
    assert re.search(r"SNIP 95 %  +2  +57\.0  ", over)  # of 89 and 25
    assert "n = 1 and 2 seeds are few: one seed has no interval, and that of two is too wide" in text


def test_the_papers_claim_is_counted(made: Path) -> None:
    lines = (made / "table.txt").read_text().splitlines()
    assert lines[0] == "at 95 %: 1 of 3 cells retain >= 97 % of dense (by their whole interval 0 do, 0 do not, 2 are undecided; 1 diverged)"
    assert lines[1] == "  SNIP, at 95 %: 1 of 2 cells retain >= 97 % of dense (by their whole interval 0 do, 0 do not, 2 are undecided)"


def test_costs_are_those_of_the_kept_weights_and_the_recorded_speed(made: Path) -> None:
    import pyarrow.parquet

    rows = {row["key"]: row for row in pyarrow.parquet.read_table(made / "trials.parquet").to_pylist()}
    dense = rows[trial("dense", 0.0, 0).key]
    assert dense["flops"] == 3 * 2 * (11 * 16 + 16 * 16 + 16 * 3) * 256 * 1000
    assert dense["seconds"] == pytest.approx(10.0)
    pruned = rows[trial("snip", 0.95, 0).key]
    assert 0 < pruned["flops"] < 0.3 * dense["flops"]
    assert pruned["actor_live_inputs"] <= 9


def test_a_trials_speed_and_its_stacks_have_names_of_their_own(tmp_path: Path, monkeypatch) -> None:
    """Two trials that train as one model make 100 updates a second together, 50 each."""
    import pyarrow.parquet

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = tmp_path / "storage"
    storage.mkdir()
    pair = [trial("snip", 0.95, seed) for seed in (0, 1)]
    ship(storage, "pair", spooled_together(storage, pair, scores(50.0), rate=100.0), Tracking(storage))
    monkeypatch.setattr("service.results.report.drawing.FIGURES", {})
    assert main(["report", "pair", "--storage", str(storage), "--to", str(tmp_path / "made")]) == 0
    rows = pyarrow.parquet.read_table(tmp_path / "made" / "trials.parquet").to_pylist()
    assert [(row["trial_updates_per_second"], row["stack_size"], row["stack_updates_per_second"]) for row in rows] == [(50, 2, 100)] * 2
    assert "a trial's own updates per second" in (tmp_path / "made" / "table.txt").read_text()


def test_everything_is_there_and_on_the_parent_runs(made: Path, storage: Path) -> None:
    assert {file.name for file in (made / "figures").iterdir()} == {f"{name}.svg" for name in FIGURES}
    assert all(file.read_bytes().startswith(b"<?xml") for file in (made / "figures").iterdir())
    assert (made / "table.tex").read_text().count(r"\midrule") == 2
    tracking = Tracking(storage)
    parents = tracking.sweeps()
    assert parents.keys() == {"smoke", "other"}
    for parent in parents.values():
        assert "report/page.html" in {file.path for file in tracking._connected().list_artifacts(parent, "report")}


def test_tasks_are_told_apart_by_what_differs_and_no_more() -> None:
    plain = trial("dense", 0.0, 0)
    others = [plain.using(hyper={"learning_rate": 1e-3}), plain.using(episodes=3), trial("dense", 0.0, 0, "winnow/walker2d/expert-v0")]
    found = [task.name for task in tasks_of([Run(each, MISSING) for each in (plain, *others)])]
    first = "hopper-expert BC"
    assert found == [
        f"{first}, episodes 10", f"{first}, episodes 3", f"{first}, learning_rate 0.001, episodes 10", "walker2d-expert BC"
    ]  # fmt: skip
    assert [task.name for task in tasks_of([Run(each, MISSING) for each in (plain, others[0])])] == [
        f"{first}, learning_rate 0.001", f"{first}, plain",
    ]  # fmt: skip


def test_every_kind_of_figure_is_asked_for() -> None:
    assert set(FIGURES) == {"sparsity", "frontier", "frontier-time", "pareto", "grid", "curves", "profiles", "layers", "inputs"}
    assert set(FIGURES) - {"grid"} == set(ABOUT)  # the page has the grid as a table


@pytest.mark.parametrize(("size", "sizes"), [(None, [12, 12, 12, 1]), ((4, 1, 1, 0.5), [4, 4, 4, 4, 4, 4, 4, 4, 4, 1])])
def test_a_sheet_is_not_much_larger_than_a_page(size: tuple[float, float, float, float] | None, sizes: list[int]) -> None:
    panels = [Panel(str(number), "x", "y", lambda axis: None, size=size) for number in range(37)]
    found = sheets(panels)
    assert [len(sheet) for sheet in found] == sizes
    assert [panel for sheet in found for panel in sheet] == panels
    assert sheets([]) == []


def test_many_panels_go_to_numbered_files(storage: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("service.results.report.drawing.TWO_COLUMNS", replace(TWO_COLUMNS, rows=1, columns=1))
    monkeypatch.setattr("service.results.report.drawing.FIGURES", {"sparsity": FIGURES["sparsity"]})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", "smoke", "other", "--storage", str(storage), "--to", str(tmp_path)]) == 0
    assert {file.name for file in (tmp_path / "figures").glob("*")} == {"sparsity.svg", "sparsity-2.svg"}
    (tmp_path / "figures" / "mine.png").write_bytes(b"")
    assert main(["report", "other", "--storage", str(storage), "--to", str(tmp_path)]) == 0
    assert {file.name for file in (tmp_path / "figures").glob("*")} == {"sparsity.svg", "mine.png"}, "of a larger older report"


def test_files_for_papers_and_slides_have_their_widths_and_their_letters(storage: Path, tmp_path: Path, monkeypatch) -> None:
    """A paper's two columns are 6.9 in wide and one is 3.35 in; text is TrueType in pdf, which journals ask for, and text in svg."""
    monkeypatch.setattr("service.results.report.drawing.FIGURES", {name: FIGURES[name] for name in ("sparsity", "frontier")})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = {}
    for chosen in ("paper", "slides"):
        assert main(["report", "smoke", "other", "--storage", str(storage), "--to", str(tmp_path), "--style", chosen]) == 0
        made[chosen] = {file.name: file.read_bytes() for file in (tmp_path / "figures").iterdir()}
    assert made["paper"].keys() == {f"{name}{end}" for name in ("sparsity", "frontier") for end in (".svg", ".png", ".pdf", "-column.pdf")}
    assert made["slides"].keys() == {f"{name}{end}" for name in ("sparsity", "frontier") for end in (".svg", "-slides.png", "-slides.pdf")}
    for name, inches, pages in (("sparsity.pdf", 2 * 2.3, 1), ("sparsity-column.pdf", 3.35, 2)):
        content = made["paper"][name]
        boxes = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) ", content)
        assert [float(width) for width in boxes] == pytest.approx([72 * inches] * pages), name
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
    assert re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) ", made["slides"]["sparsity-slides.pdf"]) == [b"892.8"]
    assert b"normalized score</text>" in made["paper"]["sparsity.svg"]


def test_a_style_that_there_is_not_is_told_with_those_there_are(storage: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", "smoke", "--storage", str(storage), "--style", "poster"])
    error = capsys.readouterr().err
    assert "poster" in error
    assert "paper" in error
    assert "slides" in error


def test_an_mlflow_that_goes_away_at_the_end_is_told_in_one_line(storage: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr("service.results.report.drawing.FIGURES", {})
    monkeypatch.setattr("mlflow.store.artifact.local_artifact_repo.LocalArtifactRepository.log_artifact", away)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", "smoke", "--storage", str(storage), "--to", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == "error: MLflow does not answer as it should (ConnectionError: nobody there)"
    assert f"page: {tmp_path / 'page.html'}" in told.out
    assert (tmp_path / "page.html").exists()


def test_on_a_terminal_no_line_is_glued_to_what_was_being_drawn(storage: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("service.results.report.drawing.FIGURES", {"sparsity": lambda tasks: []})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make(["smoke"], Tracking(storage), storage, tmp_path)
    drawn = capsys.readouterr().err.split("\r")
    assert "drawing" in "".join(drawn)
    assert (drawn[-1], drawn[-2].strip()) == ("", ""), "the line is empty, and the next one begins at its start"


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_stands_out_from_the_page(scheme: str) -> None:
    number = ("light", "dark").index(scheme)
    surface = re.findall(r"--surface: (#\w+)", style())[number]
    found = {name: contrast(pair[number], surface) for name, pair in COLOURS.items()}
    assert min(value for name, value in found.items() if name != "rule") >= 3  # WCAG's bound for lines and marks
    assert min(found[name] for name in ("ink", "muted", "absent")) >= 4.5  # and for text


class Page(HTMLParser):
    """Collects tags that could load something, ids, and whether elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "line"):
            self.open.append(tag)
        self.ids += [value or "" for name, value in attributes if name == "id"]
        self.loads += [f"{tag} {name}={v}" for name, v in attributes if name in ("src", "href") and not (v or "").startswith("#")]
        self.loads += [tag] if tag in ("script", "link", "iframe", "img") else []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open = self.open[:-1] if self.open and self.open[-1] == tag else self.open

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "br", "path", "use", "line"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(made: Path) -> None:
    text = (made / "page.html").read_text()
    found = Page()
    found.feed(text)
    assert found.open == []
    assert found.loads == ["script"], "the one that sorts and filters tables; it is in the page"
    assert len(found.ids) == len(set(found.ids))
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in text
    assert "1 failed: divergence" in text
    assert not re.search(r"#(1a1a19|0072b2|d55e00)", text.split("</style>")[1])  # colours follow light and dark


def test_the_verdict_comes_first_with_its_warnings(made: Path) -> None:
    body = (made / "page.html").read_text().split("<body>")[1]
    verdict = body.index("At 95 %: 1 of 3 cells retain")
    for warning in ("seeds are few", "which may flatter it", "budget: 1,000 updates"):
        assert verdict < body.index(warning) < body.index("<nav>"), warning


def test_tables_have_no_empty_columns_and_controls_one_table(made: Path) -> None:
    text = (made / "page.html").read_text()
    assert text.split("<h2 id=controls>")[1].split("<h2 ")[0].count("<table") == 1
    for rows in re.findall(r"<table[^>]*>(.*?)</table>", text, flags=re.S):
        cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.S) for row in rows.split("<tr>")[1:]]
        assert all(any(row[column] for row in cells[1:]) for column in range(len(cells[0]))), cells[0]


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nothing"], "no sweep 'nothing' in sqlite:"), (["smoke", "--to", __file__], "is a file; give a folder")]
)
def test_bad_input_is_told_in_one_line(arguments: list[str], told: str, storage: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", *arguments, "--storage", str(storage)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_be_made_is_told_before_anything_is_drawn(storage: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(build, "draw", lambda *args: pytest.fail("drawn"))
    assert main(["report", "smoke", "--to", "/proc/self/here", "--storage", str(storage)]) != 0
    error = capsys.readouterr().err
    assert "/proc/self/here" in error
    assert error.count("\n") == 1


def test_without_an_mlflow_nothing_is_written(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["report", "smoke", "--storage", str(tmp_path / "storage")]) == 2
    assert capsys.readouterr().err.endswith("there are: none\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["nothing", "another database", "an MLflow without the experiment"])
def test_an_address_that_is_mistyped_makes_nothing(there: str, storage: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    file = tmp_path / "typo.db"
    if there == "another database":
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE studies (id INTEGER)")
    elif there != "nothing":
        file.write_bytes(paths.mlflow_db(storage).read_bytes())
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "winow")
    before = file.read_bytes() if file.exists() else b""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    assert main(["report", "smoke", "--storage", str(tmp_path / "storage")]) == 2
    name = "winow" if there.startswith("an MLflow") else "winnow"
    assert capsys.readouterr().err == f"error: no sweep 'smoke' in sqlite:///{file}, experiment '{name}'; there are: none\n"
    assert (file.read_bytes() if file.exists() else b"") == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name] * bool(before)
