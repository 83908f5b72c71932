"""Figures as parts of a page: panels cut from a sheet's SVG, and what the keys of a legend look like.

Colours are drawn as hex values of paper; here the page's CSS variables take their place, so that a page can be light or dark.
"""

from __future__ import annotations

import io
import math
import re
from functools import cache

from service.results.report.palette import VARIABLES
from service.results.report.style import KINDS, TWO_COLUMNS, Key, Sheet, settings

READABLE = 2  # pixels per point: small text has 6 points


def cut(svg: bytes, sheet: Sheet, name: str) -> list[str]:
    """The panels of a sheet's SVG as elements for a page: ids begin with `name`, colours are the page's variables, text is text."""
    text = _for_page(svg.decode(), name)
    marks = [text.index(f'<g id="{name}-panel{number}">') for number in range(len(sheet.places))]
    legend = text.find(f'<g id="{name}-legend_')
    ends, clips = [*marks[1:], legend if legend > 0 else text.rindex("</g>")], _clips(text)
    found = []
    for number, (start, end, (x, y, width, height)) in enumerate(zip(marks, ends, sheet.places, strict=True)):
        body = text[start:end]
        used = [each for each in dict.fromkeys(re.findall(r"url\(#([^)]+)\)", body)) if each in clips]
        own = "".join(clips[each] for each in used)
        for each in used:  # panels share hatches, and an id is one element's: each panel's copy has its number
            body, own = body.replace(f"url(#{each})", f"url(#{each}-{number})"), own.replace(f'id="{each}"', f'id="{each}-{number}"')
        box, least = f"{x:.2f} {y:.2f} {width:.2f} {height:.2f}", math.ceil(READABLE * width)
        found.append(f"<svg viewBox='{box}' style='min-width:{least}px'>{body}<defs>{own}</defs></svg>")
    return found


def place(panel: str) -> str:
    """The size of a panel's place before it is drawn, as CSS: as wide as there is room, but never smaller than it can be read."""
    _, _, width, height = panel.partition("viewBox='")[2].partition("'")[0].split()
    return f"aspect-ratio:{width}/{height};min-height:{math.ceil(READABLE * float(height)) + 1}px"


def swatch(key: Key, name: str) -> str:
    """What a key of the legend looks like, as an element for a page."""
    return _for_page(_swatch(key), name)


@cache
def _swatch(key: Key) -> str:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    with settings(TWO_COLUMNS):
        figure = Figure(figsize=(0.36, 0.14))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        for artist in key.artists():
            if isinstance(artist, Line2D):
                artist.set_data([0.02, 0.98] if not key.marker else [0.02, 0.5, 0.98], [0.5] * (3 if key.marker else 2))
                artist.set_markevery([1] if key.marker else None)
                axis.add_line(artist)
            else:
                shape = Rectangle((0.1, 0.1), 0.8, 0.8)
                shape.update_from(artist)
                axis.add_patch(shape)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=KINDS["svg"])
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    body = text[text.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.S)
    return f"<svg class='key' viewBox='0 0 25.92 10.08'>{body.strip()}"


def _for_page(text: str, name: str) -> str:
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{name}-", text).replace("xlink:href", "href")
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), text)
    return re.sub(r"<[^>]*>", _shortened, text).replace("'DejaVu Sans', ", "")


def _clips(text: str) -> dict[str, str]:
    """The clipping paths and hatches of an SVG, by id."""
    return {found[2]: found[0] for found in re.finditer(r'<(clipPath|pattern) id="([^"]+)".*?</\1>', text, flags=re.S)}


def _shortened(tag: re.Match[str]) -> str:
    """A tag with coordinates to a hundredth of a point; text between tags keeps its numbers."""
    return re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
