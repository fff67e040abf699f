"""Downloads on a terminal, and in a log."""

from __future__ import annotations

import io
from typing import Any, cast

from helexa.core.fleet import Download
from helexa.core.logging import Logger
from helexa.neuron.sources.telling import Teller


class Lines:
    """A log that is read here."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def info(self, event: str, **values: Any) -> None:
        self.said.append({"event": event, **values})


def download(megabytes: int, rate: float = 50e6) -> Download:
    return Download(megabytes * 1_000_000, 4_000_000_000, rate, "m.gguf")


def test_a_terminal_shows_one_line_that_is_drawn_again() -> None:
    screen = io.StringIO()
    teller = Teller(cast("Logger", Lines()), screen, lambda: 0.0)
    teller.tell("org/m", download(0, 0.0), None)
    teller.tell("org/m", download(1000), 60.0)
    teller.tell("org/m", None, None)
    teller.tell("org/m", None, None)
    _, *drawn = screen.getvalue().replace("\r", "").split("\x1b[K")
    assert drawn == [
        f"[{'-' * 30}] org/m: 0.0 of 4.0 GB",
        f"[{'#' * 8}{'-' * 22}] org/m: 1.0 of 4.0 GB at 50.0 MB/s, about 60 s",
        "",
    ]


def test_a_log_gets_a_line_for_every_tenth_or_every_half_a_minute() -> None:
    now, lines = 0.0, Lines()
    teller = Teller(cast("Logger", lines), None, lambda: now)
    for megabytes in range(0, 4001, 40):
        teller.tell("org/m", download(megabytes), 9.0)
    assert [said["percent"] for said in lines.said] == list(range(0, 101, 10))
    assert lines.said[-1]["files"] == "4.0 of 4.0 GB at 50.0 MB/s"
    teller.tell("org/m", None, None)
    lines.said.clear()
    for second in range(100):
        now = float(second)
        teller.tell("org/slow", download(second, 1e6), None)
    assert [said["percent"] for said in lines.said] == [0, 0, 1, 2]


def test_a_model_without_a_download_is_nothing_to_tell() -> None:
    screen, lines = io.StringIO(), Lines()
    for terminal in (screen, None):
        Teller(cast("Logger", lines), terminal, lambda: 0.0).tell("org/m", None, None)
    assert (screen.getvalue(), lines.said) == ("", [])
