"""The report's page in a real browser, at a desk's and a phone's width, light and dark: `make test-pages`; needs Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.results.report.browser.chromium import Browser, browser

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")]
WIDTHS = {"desk": 1280, "phone": 390}

# Every text with its colour and what it stands on: backgrounds of elements, and shapes of figures painted below it.
TEXTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, below, opacity) => { const a = top[3] * opacity; return [0, 1, 2].map(i => a * top[i] + (1 - a) * below[i]); };
  const light = rgb => { const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const page = rgba(getComputedStyle(document.body).backgroundColor);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || element.closest('style, defs')) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    element.scrollIntoView({block: 'center', inline: 'center'});
    const box = range.getBoundingClientRect(), own = getComputedStyle(element), figure = element.closest('svg');
    let below = page.slice(0, 3);
    for (const each of document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2).reverse()) {
      const style = getComputedStyle(each);
      if (each.closest('svg') && each.tagName !== 'svg' && each.tagName !== 'text' && each.tagName !== 'tspan') {
        if (style.fill.startsWith('url') || style.fill === 'none') continue;
        below = over(rgba(style.fill), below, style.opacity * style.fillOpacity);
      } else if (!each.closest('svg')) below = over(rgba(style.backgroundColor), below, 1);
    }
    const ink = over(rgba(figure ? own.fill : own.color), below, 1);
    const [low, high] = [light(ink), light(below)].sort((a, b) => a - b);
    const frame = figure && figure.getBoundingClientRect();
    const inside = !figure || (box.left >= frame.left - 2 && box.right <= frame.right + 2
      && box.top >= frame.top - 2 && box.bottom <= frame.bottom + 2);
    found.push({text: node.textContent.trim(), contrast: (high + 0.05) / (low + 0.05), size: box.height, inside});
  }
  return {texts: found, surface: light(page.slice(0, 3))};
})()
"""
BLOCKS = """
[...document.querySelectorAll('.panels svg, table')].map(each => { const box = each.getBoundingClientRect();
  const frame = each.closest('.scroll, .panels > div').getBoundingClientRect();
  return {kind: each.tagName.toLowerCase(), width: box.width, height: box.height, left: frame.left, right: frame.right,
    room: frame.height}; })
"""


@pytest.fixture(scope="module", params=[(name, scheme) for name in WIDTHS for scheme in ("light", "dark")], ids="-".join)
def shown(request: pytest.FixtureRequest, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, int, str]]:
    name, scheme = request.param
    with browser(tmp_path_factory.mktemp("profile")) as found:
        found.open(made / "page.html", WIDTHS[name], scheme)
        yield found, WIDTHS[name], scheme


def test_nothing_is_wider_than_the_window_and_everything_is_laid_out(shown: tuple[Browser, int, str]) -> None:
    page, width, _ = shown
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    blocks = page.evaluate(BLOCKS)
    assert {block["kind"] for block in blocks} == {"svg", "table"}
    assert len([block for block in blocks if block["kind"] == "svg"]) == page.evaluate("document.querySelectorAll('.panels > div').length")
    for block in blocks:
        assert block["width"] >= 250, block
        assert block["height"] >= 60, block
        assert block["room"] >= block["height"] - 1, "cut off below"
        assert -1 <= block["left"] < block["right"] <= width + 1, block


def test_panels_are_drawn_when_they_are_scrolled_to(shown: tuple[Browser, int, str]) -> None:
    page, *_ = shown
    drawn = "[...document.querySelectorAll('.panels svg')].map(each => each.checkVisibility({contentVisibilityAuto: true}))"
    page.evaluate("scrollTo(0, 0)")
    page.picture(900)  # a frame
    before = page.evaluate(drawn)
    assert not before[-1]
    page.evaluate("[...document.querySelectorAll('.panels svg')].at(-1).scrollIntoView()")
    page.picture(900)
    assert page.evaluate(drawn)[-1]


def test_every_text_can_be_read(shown: tuple[Browser, int, str]) -> None:
    """WCAG's contrast for small text, on whatever it stands; no text of a figure is cut off at its edge."""
    page, _, scheme = shown
    found = page.evaluate(TEXTS)
    assert (found["surface"] < 0.1) == (scheme == "dark")
    texts = found["texts"]
    assert len(texts) > 200
    assert [each for each in texts if each["contrast"] < 4.5] == []
    assert [each["text"] for each in texts if not each["inside"]] == []


def test_no_text_is_smaller_than_12_pixels(shown: tuple[Browser, int, str]) -> None:
    page, *_ = shown
    small = """[...document.querySelectorAll('body *')].filter(each => [...each.childNodes].some(n => n.nodeType === 3 && n.data.trim())
      && !each.closest('style, script, defs')).map(each => { const figure = each.closest('svg');
      const scale = figure ? figure.getBoundingClientRect().width / figure.viewBox.baseVal.width : 1;
      return [each.textContent, parseFloat(getComputedStyle(each).fontSize) * scale]; }).filter(([, size]) => size < 11.95)"""
    assert page.evaluate(small) == []


def test_cells_are_sorted_by_a_click_and_filtered_by_words(shown: tuple[Browser, int, str]) -> None:
    page, *_ = shown
    of = "document.querySelector('#cells').parentElement.querySelectorAll('#cells ~ .scroll table')[0]"
    column = f"[...{of}.rows].slice(1).filter(row => !row.hidden).map(row => row.cells[3].textContent)"
    for descending in (False, True):
        page.evaluate(f"{of}.rows[0].cells[3].click()")
        means = [float(text) for text in page.evaluate(column) if text]
        assert means == sorted(means, reverse=descending)
        assert len(means) > 3
    field = f"{of}.parentElement.previousElementSibling"
    page.evaluate(f"{field}.value = 'WALKER snip'; {field}.dispatchEvent(new Event('input'))")
    assert page.evaluate(f"[...{of}.rows].slice(1).filter(row => !row.hidden).map(row => row.cells[0].textContent)") == [
        "walker2d-medium BC"
    ]
    page.evaluate(f"{field}.value = ''; {field}.dispatchEvent(new Event('input'))")


def test_the_browser_has_nothing_to_say(shown: tuple[Browser, int, str]) -> None:
    page, *_ = shown
    page.evaluate("1")  # what came before has been heard
    assert page.told == []


def test_a_link_leads_to_every_section(shown: tuple[Browser, int, str]) -> None:
    page, *_ = shown
    missing = "[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href')).filter(to => !document.querySelector(to))"
    assert page.evaluate(missing) == []
    assert page.evaluate("document.querySelectorAll('nav a').length") >= 10
