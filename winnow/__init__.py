"""Winnow: prune once, train offline, at the scale of a grid. The command `winnow` and `import winnow` work in any folder."""

from __future__ import annotations

from winnow.rooms import claim

claim()
