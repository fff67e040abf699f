from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.cli.served import served

from helexa.cli import load_progress

DONE = b'{"model": "m", "node": "attic", "status": "loaded"}'
FLEET = b'{"nodes": [{"name": "attic", "models": {"m": {"entry": {"status": "loading"}}}}]}'


class Gateway(ThreadingHTTPServer):
    """Loads until somebody has looked."""

    daemon_threads = True
    looked: threading.Event


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self._answer(FLEET)
        self.server.looked.set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.looked.wait(30)
        self._answer(DONE)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def endpoint() -> Iterator[str]:
    with served(Gateway(("127.0.0.1", 0), Handler)) as server:
        server.looked = threading.Event()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.looked.set()


def test_the_bar_shows_where_a_load_is_and_nothing_before_it_knows(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    done = load_progress.load_and_watch(endpoint, None, "m", {"model": "m"})
    assert done["status"] == "loaded"
    assert "loading on attic" in screen.getvalue()
    assert "None" not in screen.getvalue()


def test_who_stops_waiting_is_told_that_the_load_goes_on(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load_progress, "_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_progress.load_and_watch(endpoint, None, "m", {"model": "m"})
    assert "helexa fleet unload m" in capsys.readouterr().err
