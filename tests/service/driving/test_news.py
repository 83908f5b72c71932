"""News of a run: what a webhook gets, from servers that answer, fail, hang or are not there, and that its address stays secret."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.cli import training
from service.cli.parser import parser
from service.driving import news as module
from service.driving.news import News, address
from service.planning.run_settings import RunSettings
from service.terminal.redaction import hides_secret, holds_secret, redact
from trainables.errors import UserError

PATIENT = 60.0  # seconds that no test needs


class Webhook:
    """A server on loopback that gives the answers of `script`, one after the other, then 200; 0 stands for none at all."""

    def __init__(self, script: list[int]) -> None:
        self.got: list[Any] = []
        self.script = script
        self.asked = threading.Event()
        over = self._over = threading.Event()
        got, asked = self.got, self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked.set()
                status = script.pop(0) if script else 200
                if not status:
                    over.wait(PATIENT)
                    return
                if status < 300:
                    got.append((self.path, json.loads(body)))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/geheim0geheim"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(module, "PAUSES", (0.0,) * 4)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made: list[Webhook] = []

    def make(*script: int) -> Webhook:
        made.append(Webhook(list(script)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_plain_json_says_what_happened_to_which_sweep(webhook: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = webhook()
    news = News(server.url, "smoke")
    news.tell("done", "done (4 done)", trials={"done": 4}, command="winnow run smoke")
    news.finish(PATIENT)
    ((path, said),) = server.got
    assert path == "/hook/geheim0geheim"
    assert said.pop("time") > 0
    assert said.pop("host")
    assert said == {
        "event": "done", "sweep": "smoke", "text": "smoke: done (4 done)", "trials": {"done": 4}, "command": "winnow run smoke",
    }  # fmt: skip
    assert capsys.readouterr().out == ""


def test_slack_gets_a_text_alone(webhook: Any) -> None:
    server = webhook()
    news = News(f"slack:{server.url}", "smoke")
    news.tell("limit", "limit reached (--until=07:00) <&>", trials={"done": 4})
    news.finish(PATIENT)
    assert [body for _, body in server.got] == [{"text": "smoke: limit reached (--until=07:00) &lt;&amp;&gt;"}]
    assert News("https://hooks.slack.com/services/T0/B0/x", "smoke")._slack
    assert not News("https://hooks.slack.com.example.org/services/T0/B0/x", "smoke")._slack


@pytest.mark.parametrize("script", [(500, 503), (429, 408)], ids=str)
def test_a_server_that_fails_twice_is_told_in_the_end(script: tuple[int, ...], webhook: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = webhook(*script)
    news = News(server.url, "smoke")
    news.tell("failed", "failed: why")
    news.tell("done", "done")
    news.finish(PATIENT)
    assert [body["event"] for _, body in server.got] == ["failed", "done"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("script", "why"), [((404,), "HTTP 404"), ((302,), "HTTP 302"), ((500,) * 5, "HTTP 500")], ids=str)
def test_what_was_not_told_is_said_in_one_line(script: tuple[int, ...], why: str, webhook: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = webhook(*script)
    news = News(server.url, "smoke")
    news.tell("done", "done")
    news.finish(PATIENT)
    place = server.url.removesuffix("/hook/geheim0geheim")
    assert (server.got, capsys.readouterr().out) == ([], f"notification to {place}/*** failed: done: {why}\n")


def test_a_server_that_hangs_holds_nobody_up(webhook: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = webhook(0)
    news = News(server.url, "smoke")
    news.tell("stalled", "a worker has been silent")
    assert server.asked.wait(PATIENT)
    begun = time.monotonic()
    news.tell("done", "done")
    news.finish(0.1)
    assert time.monotonic() - begun < module.TIMEOUT[1], "it would have waited for an answer that does not come"
    assert "/*** failed: no answer within 0.1 s\n" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_tried_and_named(webhook: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = webhook()
    server.close()
    news = News(server.url, "smoke")
    news.tell("done", "done")
    news.finish(PATIENT)
    out = capsys.readouterr().out
    assert "/*** failed: done: ConnectionError\n" in out
    assert "geheim" not in out


def test_workers_that_stand_still_are_told_of_once_in_a_while(webhook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = webhook()
    news = News(server.url, "smoke")
    for _ in range(3):
        news.tell("stalled", "a worker has been silent")
    monkeypatch.setattr(module, "STALLED_EVERY", 0.0)
    news.tell("stalled", "another worker has been silent")
    news.finish(PATIENT)
    assert len(server.got) == 2


@pytest.mark.parametrize(
    "wrong",
    ["hooks.slack.com/services/x", "ftp://host/geheim", "slack:", "mailto:me@host", "http://", "http://host:port/x", "http://host:99999"],
)
def test_what_is_no_address_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WINNOW_NOTIFY", raising=False)
    with pytest.raises(UserError, match="is not a webhook address: http"):
        address(wrong)
    monkeypatch.setenv("WINNOW_NOTIFY", wrong)
    with pytest.raises(UserError, match="WINNOW_NOTIFY"):
        address(None)


ADDRESSES = (
    "https://hooks.slack.com/services/T0/B0/geheim",
    "slack:https://chat.example/hooks/geheim",
    "http://me:geheim@host/x/geheim?a=geheim",
)


@pytest.mark.parametrize("given", ADDRESSES)
def test_an_address_is_neither_stored_nor_shown(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = training.run_settings(parser().parse_args(["run", "smoke", f"--notify={given}"]))
    assert settings.notify == given
    stored = settings.to_json()["notify"]
    assert "geheim" not in f"{settings.words()} {stored} {News(given, 'smoke')._shown}"
    assert settings.words() == [f"--notify={stored}"]
    assert stored.endswith("/***")
    assert hides_secret(stored)
    assert address(given) == given
    again = RunSettings.from_json(json.loads(json.dumps(settings.to_json())))
    monkeypatch.delenv("WINNOW_NOTIFY", raising=False)
    with pytest.raises(UserError, match="is not stored; give it again, or set WINNOW_NOTIFY"):
        address(again.notify)
    monkeypatch.setenv("WINNOW_NOTIFY", given)
    assert address(again.notify) == given
    assert "geheim" not in redact(f"posting to {given} failed")


@pytest.mark.parametrize(
    "given", ["--notify=http://intranet/geheim1", "--notify http://intranet:80/a/geheim", "--notify slack:https://x/geheim?y"]
)
def test_a_command_line_shows_none(given: str) -> None:
    shown = redact(f"python -m winnow run smoke {given} --device=cpu", {})
    assert "geheim" not in shown
    assert shown.endswith("/*** --device=cpu")
    assert holds_secret(given)
