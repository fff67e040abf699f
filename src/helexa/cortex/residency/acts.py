"""What the scheduler asks for, done: a task for each load, unload and reading.

However a task ends, the scheduler is told, or a node would be taken for busy for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from helexa.core.errors import HelexaError, InsufficientVram, ServiceUnavailable
from helexa.core.logging import Logger
from helexa.cortex.profiles import Profile
from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.effects import InUse, NodeEffects
from helexa.cortex.residency.learned import FAILED_FOR_S, Learned
from helexa.cortex.residency.scheduler import Scheduler
from helexa.cortex.residency.world import Rules


@dataclass(slots=True)
class Hooks:
    """Whom residency tells what."""

    loaded: Callable[[str, str, float], object] = lambda _m, _n, _s: None
    evicted: Callable[[str, str], object] = lambda _m, _n: None


class Acts:
    """The scheduler's ``Effects``, and the scheduler itself.

    Args:
        profile: What the catalogue says of a model.
        loaded: Told of (node, model) when it is there, before the scheduler is.
        failed: Told of (model, why) when a load has failed.
        hopeless: See ``scheduler.Effects``.
        ring: Called when something has ended.
    """

    def __init__(
        self,
        rules: Rules,
        effects: NodeEffects,
        learned: Learned,
        now: Callable[[], float],
        *,
        profile: Callable[[str], Profile | None],
        loaded: Callable[[str, str], object],
        failed: Callable[[str, HelexaError], object],
        hopeless: Callable[[str, Hopeless], None],
        ring: Callable[[], None],
        hooks: Hooks,
        log: Logger | None,
    ) -> None:
        self.scheduler = Scheduler(self, rules)
        self._effects = effects
        self._learned = learned
        self._now = now
        self._profile = profile
        self._loaded = loaded
        self._failed = failed
        self._hopeless = hopeless
        self._ring = ring
        self._hooks = hooks
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End what is under way here; the nodes go on with it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def load(self, node: str, model: str) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._load(node, model), f"load {model} on {node}")

    def unload(self, node: str, model: str, *, forced: bool) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._unload(node, model, forced=forced), f"unload {model} from {node}")

    def read(self, node: str) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._read(node), f"read {node}")

    def hopeless(self, model: str, why: Hopeless) -> None:
        """See ``scheduler.Effects``."""
        self._hopeless(model, why)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, node: str, model: str) -> None:
        profile, started = self._profile(model), self._now()
        try:
            if profile is None:
                raise ServiceUnavailable(
                    f"The model {model!r} has left the catalogue.", retry_after_s=FAILED_FOR_S
                )
            await self._effects.load(profile, node)
        except HelexaError as error:
            self._load_failed(node, model, error)
        except Exception as error:  # noqa: BLE001 - a bug must not keep the node taken
            self._bug("load", error)
            self._load_failed(node, model, ServiceUnavailable(f"The load failed: {error!r}."))
        else:
            seconds = self._now() - started
            self._learned.timed(node, model, seconds)
            self._loaded(node, model)
            self.scheduler.loaded(node, model)
            self._hooks.loaded(model, node, seconds)
            if self._log is not None:
                self._log.info("model loaded", model=model, node=node, seconds=round(seconds, 3))
        self._ring()

    def _load_failed(self, node: str, model: str, error: HelexaError) -> None:
        work = self.scheduler.work(node)
        if work is not None and work.model == model:  # else it was cancelled by us
            self._learned.failed(node, model, error)
            if self._log is not None:
                # Not to fit is an answer; room will be made, or those who wait are told.
                expected = isinstance(error, InsufficientVram)
                say = self._log.info if expected else self._log.warning
                say("load failed", model=model, node=node, reason=error.message)
            self._failed(model, error)
        self.scheduler.failed(node, model)

    async def _unload(self, node: str, model: str, *, forced: bool) -> None:
        started = self._now()
        work = self.scheduler.work(node)
        room_for = None if work is None else work.model
        try:
            await self._effects.unload(node, model, forced=forced)
        except (HelexaError, InUse) as error:
            self.scheduler.kept(node, model, self._now())
            if self._log is not None and isinstance(error, HelexaError):
                self._log.warning("unload failed", model=model, node=node, reason=error.message)
        except Exception as error:  # noqa: BLE001 - a bug must not keep the node taken
            self._bug("unload", error)
            self.scheduler.kept(node, model, self._now())
        else:
            self._learned.unload_timed(self._now() - started)
            self.scheduler.unloaded(node, model, self._now())
            if room_for is not None:
                self._hooks.evicted(model, node)
            if self._log is not None:
                why = "idle" if room_for is None else f"room for {room_for}"
                self._log.info("model unloaded", model=model, node=node, why=why)
        self._ring()

    async def _read(self, node: str) -> None:
        free: dict[int, int] | None = None
        try:
            free = await self._effects.free_mb(node)
        except HelexaError:
            pass  # the snapshot will say what became of the node
        except Exception as error:  # noqa: BLE001 - a bug must not keep the node taken
            self._bug("read", error)
        self.scheduler.read(node, free, self._now())
        self._ring()

    def _bug(self, what: str, error: Exception) -> None:
        if self._log is not None:
            self._log.exception("bug", what=what, error=repr(error))
