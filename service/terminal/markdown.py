"""Names and messages inside Markdown, which others may have chosen: shown as they are, never read as HTML, headings or fences."""

from __future__ import annotations


def plain(text: str) -> str:
    """Text on one line that is none of the page's HTML: MLflow lets some of it through, frames of other sites included."""
    return _line(text).replace("&", "&amp;").replace("<", "&lt;")


def code(text: str) -> str:
    """Text on one line as inline code."""
    return f"`{_line(text)}`"


def block(text: str, language: str = "") -> str:
    """Lines of code or of a table."""
    return f"```{language}\n{_quoted(text)}\n```"


def _line(text: str) -> str:
    return " ".join(_quoted(text).split())


def _quoted(text: str) -> str:
    """Without the mark that ends code."""
    return text.replace("`", "'")
