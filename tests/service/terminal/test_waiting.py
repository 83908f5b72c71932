from __future__ import annotations

import io
import sys
import time

import pytest

from service.terminal import waiting


def test_a_long_wait_is_told_and_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()  # capsys may lose what another thread prints while it is read
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    monkeypatch.setattr(waiting, "EVERY", 0.01)
    with waiting.waiting("starting Ray"):
        while said.getvalue().count("\n") < 3:
            time.sleep(0.01)
    first, second, *_ = said.getvalue().splitlines()
    assert first == "starting Ray ..."
    assert second.startswith("starting Ray ... 0 s")


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 60.0)
    with pytest.raises(KeyError), waiting.waiting("reading"):
        raise KeyError
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""
