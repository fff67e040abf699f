"""The requests that wait for a model: in order, with their place and when their turn will be.

::

    join ─▶ waiting ──go──▶ placed (or ``again``: its place was taken meanwhile)
               ├──refuse─▶ refused
               └──leave──▶ gone; it no longer counts
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from helexa.core.errors import HelexaError, Overloaded
from helexa.core.fleet import Download

MOST = 4096
"""Requests that wait for loads at once; more are refused."""


class HeldUp(msgspec.Struct, frozen=True):
    """A load that has to end before another one begins on its node.

    Args:
        since: When it began (monotonic seconds).
        load_s: What it was expected to take.
    """

    node: str
    model: str
    since: float
    load_s: float

    def words(self, now: float) -> str:
        """For anybody: other people's models are not named."""
        told = f"another model is being loaded there first, for {now - self.since:.0f} s so far"
        overdue = self.load_s and now - self.since > 2 * self.load_s
        return f"{told}, longer than the {self.load_s:.0f} s it used to take" if overdue else told


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a waiting request may know.

    Args:
        position: Its place in the line, from 1: requests whose turn comes before it or with it.
        eta_s: Seconds until its turn, when that can be told.
        progress: 0 to 1 of the load that it waits for, while one is under way.
        download: The model's files, while that load fetches them.
        reason: Why its own load has not begun, where another one is in its way.
    """

    position: int
    eta_s: float | None = None
    progress: float | None = None
    download: Download | None = None
    reason: str | None = None


@dataclass(slots=True)
class Line:
    """Everybody who waits for one model.

    Args:
        ahead: Requests that wait for models which come first.
        eta_at: When the model will be ready (monotonic seconds).
        cold: The model was not there when the line was formed.
        told: Progress and seconds left as a node last said.
        held_up: The load that is in the way of this model's.
    """

    model: str
    ahead: int = 0
    eta_at: float | None = None
    progress: float | None = None
    download: Download | None = None
    cold: bool = False
    told: tuple[float | None, float | None] = (None, None)
    held_up: HeldUp | None = None
    waiters: dict[Waiter, None] = field(default_factory=dict)
    released: int = 0

    def count_off(self) -> None:
        """Tell everybody how many are before them."""
        for before, waiter in enumerate(self.waiters):
            waiter.before = before

    @property
    def causing(self) -> list[Waiter]:
        """Those who may cause a load."""
        return [waiter for waiter in self.waiters if waiter.may_load]


class Waiter:
    """One request's place in a line.

    Attributes:
        before: Requests of its own line that were before it when the owner last looked.
        cold: A load was needed for it.
        let_go: Its turn has come, and it has not left: its line counts it as released.
        fresh: The owner has not yet compared its deadline with what is known about its turn.
    """

    __slots__ = (
        "_left",
        "_line",
        "_turn",
        "before",
        "cold",
        "deadline",
        "fresh",
        "let_go",
        "may_load",
        "since",
    )

    def __init__(
        self,
        line: Line,
        since: float,
        deadline: float,
        left: Callable[[Waiter], None],
        *,
        may_load: bool,
    ) -> None:
        self._line = line
        self._left = left
        self._turn: asyncio.Future[None] | None = None
        self.since = since
        self.deadline = deadline
        self.may_load = may_load
        self.before = len(line.waiters)
        self.cold = False
        self.let_go = False
        self.fresh = True

    @property
    def model(self) -> str:
        """What it waits for."""
        return self._line.model

    @property
    def waits(self) -> bool:
        """Its turn has not come."""
        return self in self._line.waiters

    def standing(self, now: float) -> Standing:
        """Its place and when its turn comes."""
        line = self._line
        eta = None if line.eta_at is None else round(max(0.0, line.eta_at - now), 1)
        reason = None if line.held_up is None else line.held_up.words(now)
        return Standing(line.ahead + self.before + 1, eta, line.progress, line.download, reason)

    async def turn(self) -> None:
        """Wait for it.

        Raises:
            HelexaError: It will not come.
        """
        self._turn = turn = self._turn or asyncio.get_running_loop().create_future()
        await turn

    def go(self) -> None:
        """Its turn has come."""
        self._line.waiters.pop(self, None)
        self._line.released += 1
        self.let_go = True
        self._resolve(None)

    def refuse(self, error: HelexaError) -> None:
        """It need not wait any longer."""
        self._line.waiters.pop(self, None)
        self._resolve(error)

    def again(self) -> None:
        """Somebody else was quicker; back to the head of the line."""
        self._line.released -= 1
        self.let_go = False
        self._turn = None
        self._line.waiters = {self: None, **self._line.waiters}

    def leave(self) -> None:
        """It has its place, or does not want one any more; idempotent."""
        self._left(self)

    def _resolve(self, error: HelexaError | None) -> None:
        self._turn = turn = self._turn or asyncio.get_running_loop().create_future()
        if turn.done():
            return
        if error is None:
            turn.set_result(None)
        else:
            turn.set_exception(error)
            turn.exception()  # a request that has left meanwhile does not ask


class WaitingRoom:
    """All lines, by model."""

    def __init__(self, now: Callable[[], float], changed: Callable[[], None]) -> None:
        self.lines: dict[str, Line] = {}
        self._now = now
        self._changed = changed
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, model: str, deadline: float, *, may_load: bool) -> Waiter:
        """Take a place at the end of the model's line.

        Raises:
            Overloaded: Too many wait already.
        """
        if self._count >= MOST:
            raise Overloaded(
                f"{self._count} requests wait for models to be loaded; ask again later.",
                retry_after_s=10,
            )
        line = self.lines.get(model)
        if line is None:
            line = self.lines[model] = Line(model)
        waiter = Waiter(line, self._now(), deadline, self._left, may_load=may_load)
        line.waiters[waiter] = None
        self._count += 1
        self._changed()
        return waiter

    def _left(self, waiter: Waiter) -> None:
        line = waiter._line  # noqa: SLF001 - a waiter is part of its line
        if waiter._left is _nobody:  # noqa: SLF001
            return
        waiter._left = _nobody  # noqa: SLF001
        self._count -= 1
        if waiter in line.waiters:
            del line.waiters[waiter]
        elif waiter.let_go:  # also one that gave up in the very moment that its turn came
            line.released -= 1
        self._changed()

    def waited_for(self, model: str) -> bool:
        """Whether somebody stands in the model's line."""
        line = self.lines.get(model)
        return line is not None and bool(line.waiters)

    def tidy(self) -> None:
        """Forget the lines that nobody stands in."""
        for model, line in list(self.lines.items()):
            if not line.waiters and not line.released:
                del self.lines[model]


def _nobody(_waiter: Waiter) -> None:
    pass
