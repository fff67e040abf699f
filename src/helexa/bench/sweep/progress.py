"""How a sweep goes, on a terminal as a bar and elsewhere as lines."""

from __future__ import annotations

import importlib.util
from typing import Any, TextIO

from helexa.bench.row import Result
from helexa.bench.sweep.due import Due


class Lines:
    """One line per run, for logs and for terminals without rich."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._total = 0
        self._made = 0

    def begin(self, runs: int) -> None:
        """See ``Progress``."""
        self._total, self._made = runs, 0
        self._say(_begun(runs))

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._say(text)

    def done(self, run: Due, result: Result | None) -> None:
        """See ``Progress``."""
        self._made += 1
        self._say(f"[{self._made}/{self._total}] {_title(run)}  {outcome(result)}")

    def end(self) -> None:
        """Nothing to close."""

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class Bar:
    """A bar with the time that is left; notes stand above it."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415  # only where it is installed
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TimeRemainingColumn,
        )

        self._bar: Any = Progress(
            "[bold]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=out),
        )
        self._task: Any = None

    def begin(self, runs: int) -> None:
        """See ``Progress``."""
        self._bar.start()
        if not runs:
            self._bar.console.print(_begun(runs), markup=False)
        if self._task is not None:
            self._bar.remove_task(self._task)  # of the sweep before; it would stand there for ever
        self._task = self._bar.add_task("sweep", total=runs)

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._bar.console.print(text, markup=False)

    def done(self, run: Due, result: Result | None) -> None:
        """See ``Progress``."""
        self._bar.update(self._task, advance=1, description=run.key.target)
        self._bar.console.print(f"{_title(run)}  {outcome(result)}", markup=False)

    def end(self) -> None:
        """See ``Progress``."""
        self._bar.stop()


def outcome(result: Result | None) -> str:
    """A run in a few words."""
    if result is None:
        return "put off"
    if not result.ok:
        return f"failed: {result.error}"
    words = []
    if result.load_ms is not None:
        words.append(f"loaded in {result.load_ms / 1000:.2f} s")
    if result.first_token_ms is not None:
        words.append(f"first token {result.first_token_ms:.1f} ms")
    if result.decode_rate is not None:
        words.append(f"{result.decode_rate:.1f} tokens/s")
    if result.throughput is not None and result.requests > 1:
        words.append(f"{result.throughput:.1f} tokens/s of all {result.requests} streams")
    if result.refused:
        words.append(f"{result.refused} refused")
    return ", ".join(words) or "ok"


def progress(out: TextIO) -> Lines | Bar:
    """What suits ``out``."""
    if out.isatty() and importlib.util.find_spec("rich") is not None:
        return Bar(out)
    return Lines(out)


def _begun(runs: int) -> str:
    return f"{runs} runs due" if runs else "nothing is due: what can be measured has its samples"


def _title(run: Due) -> str:
    return f"{run.key.target}  {run.key.model}  {run.key.scenario} #{run.sample + 1}"
