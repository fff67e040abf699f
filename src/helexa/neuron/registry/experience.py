"""What earlier loads of a model taught: its real memory, its load time, its prefill speed.

Kept in one small file, so that the second load of a model plans with measurements. Losing the
file costs nothing but the first estimate.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from helexa.wire.bodies import UNREADABLE

MOST = 256
"""Models remembered; the oldest is forgotten."""


class Lesson(msgspec.Struct, frozen=True):
    """One model on this host.

    Args:
        correction: Measured ÷ predicted memory.
        load_secs: From the start of the process to the sanity token.
        prefill_tok_s: Measured rate; None before any prompt was long enough.
    """

    correction: float = 1.0
    load_secs: float | None = None
    prefill_tok_s: float | None = None


class Experience:
    """Lessons by model and quant, in ``path``; a file that cannot be used is no obstacle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lessons: dict[str, Lesson] = {}
        with contextlib.suppress(OSError, *UNREADABLE):
            self._lessons = msgspec.json.decode(path.read_bytes(), type=dict[str, Lesson])

    def of(self, key: str) -> Lesson:
        """The lesson of one model, or the blank one."""
        return self._lessons.get(key, Lesson())

    def learn(self, key: str, **known: float | None) -> None:
        """Replace what is now known better, and write it down."""
        lesson = msgspec.structs.replace(self.of(key), **known)
        self._lessons.pop(key, None)
        self._lessons[key] = lesson
        while len(self._lessons) > MOST:
            self._lessons.pop(next(iter(self._lessons)))
        with contextlib.suppress(OSError):
            fresh = self._path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(self._lessons))
            fresh.replace(self._path)
