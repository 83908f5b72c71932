"""Pictures of a report's page, section by section, at a desk's and a phone's width, light and dark: docs/pictures/ and docs/pictures.md.

python -m tests.service.results.report.browser.pictures [--storage FOLDER]

Shows the first study: from `--storage`, else adopted from benchmarks/study.zip and shipped to an MLflow of its own. Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from service.__main__ import main as winnow
from tests.service.results.report.browser.chromium import Browser, browser

ROOT = Path(__file__).parents[5]
STUDY = ROOT / "benchmarks" / "study.zip"
FOLDER = ROOT / "docs" / "pictures"
SWEEPS = ("study", "study_grasp")
WIDTHS = {"desk": 1280, "phone": 390}
SCHEMES = ("light", "dark")
TALLEST = {"desk": 850, "phone": 900}  # pixels of a picture; what is below is more of the same
COLOURS = 256  # of a picture: a page has few
SECTIONS = """
[['page', 'The page', 0], ...[...document.querySelectorAll('h2[id]')].map(each => [each.id, each.textContent,
  each.getBoundingClientRect().top + scrollY - 12])].map(([id, title, top], number, all) =>
  [id, title, top, (number + 1 < all.length ? all[number + 1][2] : document.documentElement.scrollHeight) - top])
"""
ALL_DRAWN = "document.querySelectorAll('.panels > div').forEach(each => each.style.contentVisibility = 'visible')"
HEAD = """# The report in pictures

The page that `winnow report study study_grasp` makes of [the first study](results.md), section by section: 1280 and 390 pixels wide, for
readers who prefer light or dark. Long sections are cut. `make pictures` renews this page and its pictures; it needs Chromium (Debian's
`chromium`). The same figures as files for a paper are in [results.md](results.md#pictures).
"""


def shots(page: Path, found: Browser) -> Iterator[tuple[str, str, str, str, bytes]]:
    """Section, its heading, width, scheme, and the PNG."""
    for width, pixels in WIDTHS.items():
        for scheme in SCHEMES:
            found.open(page, pixels, scheme, unfold=False)
            found.evaluate(ALL_DRAWN)
            for section, title, top, height in found.evaluate(SECTIONS):
                yield section, title, width, scheme, found.picture(int(min(height, TALLEST[width])), int(top))


def small(png: bytes) -> bytes:
    """The picture with a palette."""
    with Image.open(io.BytesIO(png)) as image:
        stream = io.BytesIO()
        image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return stream.getvalue()


def name(section: str, width: str, scheme: str) -> str:
    return f"{section}-{width}-{scheme}.png"


def written(titles: dict[str, str]) -> str:
    """docs/pictures.md."""
    parts = [HEAD]
    for section, title in titles.items():
        parts.append(f"## {title}\n")
        for width, pixels in WIDTHS.items():
            shown = (f"![{title}, {pixels} pixels, {scheme}](pictures/{name(section, width, scheme)})" for scheme in SCHEMES)
            parts.append(f"| {pixels} pixels, light | dark |\n| --- | --- |\n| {' | '.join(shown)} |\n")
    return "\n".join(parts)


def made(storage: Path | None, to: Path) -> Path:
    """The report's page."""
    if storage is None:
        storage = to / "storage"
        for words in (["adopt", str(STUDY)], *(["sync", sweep] for sweep in SWEEPS)):
            assert winnow([*words, "--storage", str(storage)]) == 0
    assert winnow(["report", *SWEEPS, "--storage", str(storage), "--to", str(to / "report")]) == 0
    return to / "report" / "page.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, help="where the sweeps ran")
    parser.add_argument("--page", type=Path, help="the page of a report that was made already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        page = given.page or made(given.storage, Path(place))
        FOLDER.mkdir(exist_ok=True)
        for old in FOLDER.glob("*.png"):
            old.unlink()
        titles = {}
        with browser(Path(place) / "profile") as found:
            for section, title, width, scheme, png in shots(page.resolve(), found):
                titles[section] = title
                (FOLDER / name(section, width, scheme)).write_bytes(small(png))
    FOLDER.with_suffix(".md").write_text(written(titles))


if __name__ == "__main__":
    main()
