"""What the node's log says of its models: that one loads, serves, failed and why, died, went."""

from __future__ import annotations

from collections.abc import Callable

from helexa.core.errors import HelexaError
from helexa.core.fleet import ModelEntry
from helexa.core.logging import Logger

_REMEMBERED = 256
"""Failures of so many models; callers may ask for names without end."""


class Journal:
    """Follows the table of models, for people.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, log: Logger, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._seen: dict[str, tuple[str, str | None, float]] = {}
        self._failed: dict[str, str] = {}

    def changed(self, entry: ModelEntry) -> None:
        """A model is as ``entry`` says."""
        model, status, reason = entry.id, entry.status, entry.servable.detail
        before, why, since = self._seen.get(model, ("", None, 0.0))
        if status == before and (status != "recovering" or reason == why):
            return
        now = self._clock()
        self._seen[model] = (status, reason, since if status == before else now)
        if status in ("loading", "reloading"):
            # A boot-time model is tried again without end: its attempts are said until one failed.
            say = self._log.debug if model in self._failed else self._log.info
            say("model", model=model, status=status)
        elif status == "recovering":
            self._log.warning("model", model=model, status=status, reason=reason)
        elif status == "loaded":
            self._failed.pop(model, None)
            self._log.info(
                "model",
                model=model,
                status=status,
                engine=entry.harness,
                seconds=round(now - since, 3),
                context=None if entry.limit is None else entry.limit.context,
                memory_mb=entry.vram_used_mb,
            )

    def failed(self, model: str, error: HelexaError) -> None:
        """A load has failed; the same reason again is not worth another line."""
        say = self._log.debug if self._failed.get(model) == error.message else self._log.warning
        self._failed.pop(model, None)
        self._failed[model] = error.message
        if len(self._failed) > _REMEMBERED:
            del self._failed[next(iter(self._failed))]
        say("model", model=model, status="failed", reason=error.message)

    def gone(self, model: str) -> None:
        """A model has left the table."""
        seen = self._seen.pop(model, None)
        if seen is not None and seen[0] == "unloading":
            self._log.info("model", model=model, status="unloaded")
