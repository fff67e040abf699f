"""Downloads for whoever sits before the node: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from helexa.core.fleet import Download
from helexa.core.logging import Logger

WIDTH = 30
EVERY_S = 30.0
STEP = 10
"""A line in the log for every tenth, or every half a minute."""


class Teller:
    """Tells of every download that it hears of.

    Args:
        terminal: Where the bar goes; None when nobody looks at it.
        clock: Seconds, monotonic.
    """

    def __init__(self, log: Logger, terminal: TextIO | None, clock: Callable[[], float]) -> None:
        self._log = log
        self._terminal = terminal
        self._clock = clock
        self._said: dict[str, tuple[int, float]] = {}

    def tell(self, model: str, download: Download | None, eta_s: float | None) -> None:
        """How far a model's files are; None when they are not what it waits for."""
        if download is None or not download.bytes_total:
            if self._said.pop(model, None) is not None:
                self._draw("")
            return
        percent, now = 100 * download.bytes // download.bytes_total, self._clock()
        before, since = self._said.get(model, (-STEP, now))
        if self._terminal is not None:
            self._said[model] = (percent, now)
            self._draw(f"{bar(percent / 100)} {model}: {said(download, eta_s)}")
        elif percent // STEP > before // STEP or now - since >= EVERY_S:
            self._said[model] = (percent, now)
            files = download.words()
            self._log.info("fetching", model=model, files=files, eta_s=eta_s, percent=percent)

    def _draw(self, line: str) -> None:
        if self._terminal is not None:
            # The cursor waits at the line's start: what the log writes next goes over the bar.
            self._terminal.write(f"\x1b[K{line}\r")
            self._terminal.flush()


def bar(part: float) -> str:
    """``[#####-----]``."""
    full = round(WIDTH * min(1.0, max(0.0, part)))
    return f"[{'#' * full}{'-' * (WIDTH - full)}]"


def said(download: Download, eta_s: float | None) -> str:
    """How far, how fast, how long still."""
    return download.words() + ("" if eta_s is None else f", about {eta_s:.0f} s")
