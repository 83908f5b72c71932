"""How long each worker is usually silent, and which are silent for much longer than that. Pure: the clock is handed in."""

from __future__ import annotations

TIMES = 5.0  # its longest silence so far, after which a worker counts as silent
LEAST = 30.0  # seconds, whatever its pace
FIRST = 300.0  # seconds before a worker's first news: it loads libraries and data, and prunes
ASLEEP = 5.0  # seconds between two looks, after which it was we who stood still


class Pace:
    """The pace of the stacks in training, by the key of their first trial."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._longest: dict[str, float] = {}  # silence of each, once there was news
        self._looked: float | None = None

    def start(self, key: str, now: float) -> None:
        self._heard[key] = now
        self._longest.pop(key, None)

    def news(self, key: str, now: float) -> None:
        """The stack has got further."""
        if key in self._heard:
            self._longest[key] = max(self._longest[key], now - self._heard[key]) if key in self._longest else 0.0
            self._heard[key] = now

    def end(self, key: str) -> None:
        self._heard.pop(key, None)
        self._longest.pop(key, None)

    def silent(self, now: float, after: float | None = None) -> dict[str, float]:
        """The stacks that are silent, and for how many seconds: longer than a multiple of their own pace, or than `after` seconds."""
        if self._looked is not None and now - self._looked > ASLEEP:  # suspended, or held up by the storage: nobody's news could reach us
            self._heard = {key: heard + now - self._looked for key, heard in self._heard.items()}
        self._looked = now
        return {key: now - heard for key, heard in self._heard.items() if now - heard > self._patience(key, after)}

    def _patience(self, key: str, after: float | None) -> float:
        if key not in self._longest:
            return max(FIRST, after or 0.0)
        return max(LEAST, TIMES * self._longest[key]) if after is None else after
