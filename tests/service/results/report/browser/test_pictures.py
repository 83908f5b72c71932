"""docs/pictures.md shows every section of the page and every figure, at two widths, light and dark."""

from __future__ import annotations

import re

from PIL import Image

from service.results.report.page import ABOUT
from tests.service.results.report.browser.pictures import FOLDER, SCHEMES, WIDTHS, name

MOST = 2_000_000  # bytes of all pictures


def test_every_figure_and_the_page_are_there_at_both_widths_light_and_dark() -> None:
    page = FOLDER.with_suffix(".md").read_text()
    shown = set(re.findall(r"\]\(pictures/([^)]+)\)", page))
    assert shown == {file.name for file in FOLDER.iterdir()}
    for section in ("page", "grid", "over", "controls", "cells", *ABOUT):
        for width, pixels in WIDTHS.items():
            for scheme in SCHEMES:
                with Image.open(FOLDER / name(section, width, scheme)) as image:
                    assert image.width == pixels
                    assert (max(image.convert("RGB").crop((0, 0, 2, 2)).tobytes()) < 64) == (scheme == "dark")
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MOST


def test_no_figure_is_empty() -> None:
    """A panel that had not been drawn yet when its picture was taken has no colour of a method."""
    for section in ABOUT:
        with Image.open(FOLDER / name(section, "desk", "light")) as image:
            half = image.convert("RGB").crop((0, image.height // 2, image.width, image.height))
            assert len(half.getcolors(half.width * half.height) or ()) > 20, section
