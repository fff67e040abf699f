"""What loads have taught: how long they take, how much they need, and where they just failed.

Bounded by the catalogue times the fleet; what has left both is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from helexa.core.errors import HelexaError, InsufficientVram, ServiceUnavailable, UpstreamFailed
from helexa.cortex.residency.world import UNKNOWN_LOAD_S

SMOOTHING = 0.5
FAILED_FOR_S = 10.0
FAILED_LONGEST_S = 300.0
STANDS_FOR_S = 60.0
"""So long a node is not asked again for what only a person can mend."""
FIRM_FOR_S = 60.0
"""So long a node's word about what a load needs is not asked for again."""
RETRY_VRAM_S = 30.0
TRIES = 2
"""Refusals for want of memory in a row after which a node is left alone for a while."""
UNLOAD_S = 0.5
"""Taken for an unload that nobody has timed yet."""


class Lesson(msgspec.Struct, frozen=True):
    """What is worth keeping of one node and model over a restart.

    Args:
        load_s: Seconds of a load, smoothed.
        need_mb: Free memory that it took, as its node once said.
    """

    node: str
    model: str
    load_s: float | None = None
    need_mb: int | None = None


@dataclass(slots=True)
class _Lesson:
    load_s: float | None = None
    loads: int = 0
    need_mb: int | None = None
    firm_until: float = 0.0
    fetching_at: float | None = None
    failures: int = 0
    blocked_until: float = 0.0
    error: HelexaError | None = None


class Learned:
    """Lessons by (node, model).

    Args:
        now: Monotonic seconds.

    Attributes:
        changed: Called when there is something new in ``lessons``.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.changed: Callable[[], object] = lambda: None
        self._lessons: dict[tuple[str, str], _Lesson] = {}
        self._unload_s: float | None = None

    def lessons(self) -> tuple[Lesson, ...]:
        """What was timed and needed, for a later life."""
        return tuple(
            Lesson(node, model, lesson.load_s if lesson.loads else None, lesson.need_mb)
            for (node, model), lesson in self._lessons.items()
            if lesson.loads or lesson.need_mb is not None
        )

    def recall(self, lessons: Iterable[Lesson]) -> None:
        """Begin with what an earlier life has learned."""
        for kept in lessons:
            loads = 0 if kept.load_s is None else 1
            self._lessons[kept.node, kept.model] = _Lesson(kept.load_s, loads, kept.need_mb)

    @property
    def unload_s(self) -> float:
        """What an unload takes."""
        return UNLOAD_S if self._unload_s is None else self._unload_s

    def load_s(self, node: str, model: str) -> float | None:
        """What a load takes there: as timed there, else on another node; None is unknown."""
        here = self._lessons.get((node, model))
        if here is not None and here.load_s is not None:
            return here.load_s
        others = [
            lesson.load_s
            for (_, name), lesson in self._lessons.items()
            if name == model and lesson.load_s is not None
        ]
        return sum(others) / len(others) if others else None

    def guess_s(self, node: str, model: str) -> float:
        """``load_s``, or what loads of other models take there, or a plain guess."""
        known = self.load_s(node, model)
        if known is not None:
            return known
        there = [lesson.load_s for (at, _), lesson in self._lessons.items() if at == node]
        timed = [seconds for seconds in there if seconds is not None]
        return sum(timed) / len(timed) if timed else UNKNOWN_LOAD_S

    def timed_here(self, node: str, model: str) -> bool:
        """Whether a load of it was timed on that node, by us."""
        lesson = self._lessons.get((node, model))
        return lesson is not None and lesson.loads > 0

    def need_mb(self, node: str, model: str, used_mb: int | None) -> tuple[int | None, bool]:
        """Free memory that a load takes there, and whether the node has just said so.

        Args:
            used_mb: What it uses where it is loaded, or the operator's estimate.
        """
        lesson = self._lessons.get((node, model))
        if lesson is None:
            return used_mb, False
        firm = lesson.firm_until > self._now()
        if firm:
            return lesson.need_mb, True
        return (lesson.need_mb if used_mb is None else used_mb), False

    def blocked_until(self, node: str, model: str) -> float:
        """When to try again there."""
        lesson = self._lessons.get((node, model))
        return 0.0 if lesson is None else lesson.blocked_until

    def error(self, nodes: Collection[str], model: str) -> HelexaError | None:
        """Why the latest load on one of ``nodes`` failed, while it counts."""
        now = self._now()
        found = [
            lesson
            for node in nodes
            if (lesson := self._lessons.get((node, model))) is not None
            and lesson.error is not None
            and max(lesson.blocked_until, lesson.firm_until) > now
        ]
        last = max(found, key=lambda lesson: lesson.blocked_until, default=None)
        passing = [one for one in found if one.error is not None and not one.error.lasting]
        if passing:  # while one of them may yet do it, nothing stands
            last = max(passing, key=lambda lesson: lesson.blocked_until)
        return None if last is None else last.error

    def timed(self, node: str, model: str, seconds: float) -> None:
        """A load has ended well."""
        lesson = self._lessons.setdefault((node, model), _Lesson())
        if lesson.fetching_at is not None:  # the next load has its files
            seconds = min(seconds, self._now() - lesson.fetching_at)
            lesson.fetching_at = None
        before = lesson.load_s if lesson.loads else None
        lesson.loads += 1
        lesson.load_s = seconds if before is None else before + SMOOTHING * (seconds - before)
        lesson.failures, lesson.blocked_until, lesson.error = 0, 0.0, None
        self.changed()

    def expects(self, node: str, model: str, seconds: float) -> None:
        """The node's own estimate; counts until a load was timed."""
        lesson = self._lessons.setdefault((node, model), _Lesson())
        if not lesson.loads:
            lesson.load_s = seconds

    def fetching(self, node: str, model: str) -> None:
        """Its files are on their way to that node now."""
        self._lessons.setdefault((node, model), _Lesson()).fetching_at = self._now()

    def unload_timed(self, seconds: float) -> None:
        """An unload has ended."""
        before = self.unload_s
        self._unload_s = before + SMOOTHING * (seconds - before)

    def failed(self, node: str, model: str, error: HelexaError) -> None:
        """A load has failed; for want of memory, its figures say what it needs."""
        lesson = self._lessons.setdefault((node, model), _Lesson())
        now, lesson.error = self._now(), error
        lesson.failures += 1
        grown = 2.0 ** min(lesson.failures - 1, 10)
        needed = required_mb(error)
        if needed is None:
            first = STANDS_FOR_S if error.lasting else FAILED_FOR_S
            lesson.blocked_until = now + min(FAILED_LONGEST_S, first * grown)
            return
        lesson.need_mb, lesson.firm_until = needed, now + FIRM_FOR_S
        self.changed()
        if lesson.failures > TRIES:
            # Once is how one learns; again and again means that its figures and ours differ.
            lesson.blocked_until = now + min(RETRY_VRAM_S, grown)

    def forget(self, known: Collection[str], nodes: Collection[str]) -> None:
        """Keep what is about these models and nodes."""
        for node, model in [k for k in self._lessons if k[0] not in nodes or k[1] not in known]:
            del self._lessons[node, model]


def required_mb(error: HelexaError) -> int | None:
    """Free memory with which a refused load would have fitted; None when that is not known.

    A node plans with less than what is free: the difference is needed beside the model.
    """
    if not isinstance(error, InsufficientVram):
        return None
    needed, usable, free = (error.extras.get(k) for k in ("needed_mb", "usable_mb", "free_mb"))
    if not isinstance(needed, int):
        return None
    if isinstance(usable, int) and isinstance(free, int):
        return needed + max(0, free - usable)
    return needed


def with_retry(error: HelexaError, retry_after_s: float | None) -> HelexaError:
    """The same refusal for somebody else, or for somebody who asks later.

    What an upstream failed with is our own unavailability by then: nothing of this request was
    sent there.
    """
    kind = ServiceUnavailable if isinstance(error, UpstreamFailed) else type(error)
    made = kind.__new__(kind)
    after = None if retry_after_s is None or kind.lasting else round(retry_after_s, 3)
    extras: dict[str, Any] = error.extras
    HelexaError.__init__(made, error.message, param=error.param, retry_after_s=after, **extras)
    return made
