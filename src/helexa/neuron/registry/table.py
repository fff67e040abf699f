"""The table of models and every change to it.

::

    load ─▶ loading ─▶ loaded ◀─▶ recovering     (the engine died; its supervisor restarts it)
               │          │ load with other settings ─▶ reloading ─▶ loaded
               ▼          ▼ unload, idle, drain
             failed    unloading ─▶ gone
               └─ not tried again ─▶ gone

Methods that change the table do so without awaiting in between, so a check and its act are one
step; the slow work belongs to one task per entry. Files are brought side by side; what follows
runs one after the other: a plan is made against memory that nobody else is about to take. Readers
get values that were cached before; nothing here waits for an engine on their behalf.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, Protocol, TypeVar

from msgspec.structs import asdict

from helexa.core.errors import (
    HelexaError,
    InternalError,
    ModelLoading,
    ModelNotFound,
    ModelRecovering,
    ServiceUnavailable,
    let_frames_go,
)
from helexa.core.fleet import Download, LoadRequest, ModelEntry, ModelLoad
from helexa.neuron.engines.supervisor import EngineChange
from helexa.neuron.registry.entry import Entry, R

FAILED_FOR_S = 600.0
"""So long a failed load is told of, unless it is tried again; then nobody wants the model."""
_OVER = ("failed", "unloading")
R_co = TypeVar("R_co", covariant=True)


class LoadWatch(Protocol):
    """How a load reports back while it runs, and how its engine does afterwards."""

    def progress(
        self, fraction: float, eta_s: float | None, download: Download | None = None
    ) -> None:
        """How far the load is (0 to 1), the seconds left when known, the files on their way."""

    def engine(self, change: EngineChange) -> None:
        """The engine process changed its state."""


class Loader(Protocol[R_co]):
    """The effect behind a load: files, plan, process, sanity."""

    async def prepare(self, spec: LoadRequest, watch: LoadWatch) -> Callable[[], Awaitable[R_co]]:
        """Bring the model's files, which models do side by side; what then makes it ready to
        serve, which they do one after the other. Cancelling either leaves nothing running.

        Raises:
            HelexaError: Why it cannot be; ``ModelNotFound`` when there is no such model.
        """


class Registry(Generic[R]):
    """Owner of what is loaded.

    Args:
        loader: Makes models ready.
        on_model: Called with an entry's listing after every change of it.
        on_gone: Called with the id when a model has left the table.
        on_failed: Called with the id and the reason when a load has failed, before ``on_gone``.
        on_progress: Called with the id, fraction, seconds left and files while a model loads.
        unload_s: How long running requests may finish when their model is unloaded.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        loader: Loader[R],
        *,
        on_model: Callable[[ModelEntry], None],
        on_gone: Callable[[str], None],
        on_progress: Callable[[str, float, float | None, Download | None], None],
        unload_s: float,
        clock: Callable[[], float],
        on_failed: Callable[[str, HelexaError], None] = lambda _model, _error: None,
    ) -> None:
        self.draining = False
        self._loader = loader
        self._on_model = on_model
        self._on_gone = on_gone
        self._on_failed = on_failed
        self._on_progress = on_progress
        self._unload_s = unload_s
        self._clock = clock
        self._entries: dict[str, Entry[R]] = {}
        self._leaving: set[Entry[R]] = set()
        self._lane = asyncio.Lock()
        self._in_lane: Entry[R] | None = None

    # ── readers ─────────────────────────────────────────────────────────────────────────────

    def serving(self, model_id: str) -> R:
        """The loaded model for a request.

        Raises:
            ModelNotFound, ModelLoading, ModelRecovering, ServiceUnavailable: Why not now.
        """
        entry = self._entries.get(model_id)
        if self.draining:
            raise ServiceUnavailable("This node is draining; ask another one.", retry_after_s=5)
        if entry is None:
            raise ModelNotFound(f"The model '{model_id}' is not loaded on this node.")
        if entry.status == "loaded" and entry.resident is not None:
            return entry.resident
        raise self._refusal(entry)

    def get(self, model_id: str) -> Entry[R]:
        """The entry, whatever its status.

        Raises:
            ModelNotFound: It is not in the table.
        """
        entry = self._entries.get(model_id)
        if entry is None:
            raise ModelNotFound(f"The model '{model_id}' is not loaded on this node.")
        return entry

    def entries(self) -> list[Entry[R]]:
        """Everything in the table."""
        return list(self._entries.values())

    def listings(self) -> list[ModelEntry]:
        """The body of ``/models``."""
        return [entry.listing() for entry in self._entries.values()]

    def figures(self) -> list[ModelLoad]:
        """The models of ``/health``."""
        return [e.resident.figures() for e in self._entries.values() if e.resident is not None]

    def residents(self) -> list[R]:
        """Every model with an engine, loaded or recovering."""
        return [e.resident for e in self._entries.values() if e.resident is not None]

    def _refusal(self, entry: Entry[R]) -> HelexaError:
        name = f"The model '{entry.model_id}'"
        if entry.status in ("loading", "reloading"):
            after = entry.eta_s if entry.eta_s is not None else 5.0
            return ModelLoading(
                f"{name} is loading{self._held_up(entry)}.",
                retry_after_s=after,
                progress=round(entry.progress, 3),
                eta_s=entry.eta_s,
                download=None if entry.download is None else asdict(entry.download),
            )
        if entry.status == "recovering":
            after = max(1.0, entry.retry_at - self._clock())
            return ModelRecovering(f"{name} is restarting.", retry_after_s=after)
        if entry.status == "failed" and entry.error is not None:
            return ServiceUnavailable(
                f"{name} could not be loaded: {entry.error.message}", retry_after_s=30
            )
        return ServiceUnavailable(f"{name} is being unloaded.", retry_after_s=1)

    def _held_up(self, entry: Entry[R]) -> str:
        """Why its files are here and its engine has not begun; nothing when it is not so."""
        first = self._in_lane
        if not entry.in_line or first is None:
            return ""
        so_far = self._clock() - first.started
        return f"; the load of '{first.model_id}' here comes first, for {so_far:.0f} s so far"

    # ── loads ───────────────────────────────────────────────────────────────────────────────

    def begin(self, spec: LoadRequest) -> Entry[R]:
        """Start a load or join the one under way; does not wait.

        Raises:
            ServiceUnavailable: The node drains.
            ModelRecovering: It is loaded and restarting.
        """
        if self.draining:
            raise ServiceUnavailable("This node is draining; load the model on another one.")
        old = self._entries.get(spec.model_id)
        if old is not None and old.status not in _OVER and old.suits(spec):
            if old.status == "recovering":
                raise self._refusal(old)
            return old
        live = old if old is not None and old.status not in _OVER else None
        entry: Entry[R] = Entry(
            spec if live is None else live.with_changes(spec),
            "loading" if live is None else "reloading",
            asyncio.get_running_loop().create_future(),
            self._clock(),
        )
        entry.outcome.add_done_callback(_retrieve)
        self._entries[spec.model_id] = entry
        if old is not None:
            old.replaced = True
            self._end(old)
        entry.work = asyncio.create_task(self._load(entry, old), name=f"load {spec.model_id}")
        self._changed(entry)
        return entry

    def reload_of(self, spec: LoadRequest) -> LoadRequest | None:
        """What ``begin`` would make of a model that is there with other settings; else None."""
        old = self._entries.get(spec.model_id)
        if old is None or old.status in _OVER or old.suits(spec):
            return None
        return old.with_changes(spec)

    async def load(self, spec: LoadRequest) -> ModelEntry:
        """Load a model, or wait for the load under way; the waiter may leave at any time.

        Raises:
            HelexaError: Why the load failed; every waiter gets the same.
        """
        entry = self.begin(spec)
        await asyncio.shield(entry.outcome)
        return entry.listing()

    async def _load(self, entry: Entry[R], old: Entry[R] | None) -> None:
        watch = _Watch(self, entry)
        try:
            if old is not None:
                await old.gone.wait()
            ready = await self._loader.prepare(entry.spec, watch)
            entry.in_line = self._lane.locked()
            async with self._lane:
                entry.in_line, self._in_lane = False, entry
                try:
                    entry.started = self._clock()
                    resident = await ready()
                finally:
                    self._in_lane = None
        except asyncio.CancelledError:
            self._failed(entry, ServiceUnavailable("It was unloaded while it was loading."))
            raise
        except HelexaError as error:
            self._failed(entry, error)
        except Exception as error:  # noqa: BLE001 - a loader's bug must not end the daemon
            self._failed(entry, InternalError(f"The load failed: {type(error).__name__}: {error}"))
        else:
            entry.resident = resident
            if entry.ending is None:
                entry.status, entry.progress, entry.error = "loaded", 1.0, None
                self._changed(entry)
                watch.catch_up()
            entry.outcome.set_result(resident)

    def _failed(self, entry: Entry[R], error: HelexaError) -> None:
        let_frames_go(error)
        entry.error = error
        if not entry.outcome.done():
            entry.outcome.set_exception(error)
        if entry.ending is not None:
            return
        entry.status, entry.failed_at = "failed", self._clock()
        entry.gone.set()
        self._on_failed(entry.model_id, error)
        if isinstance(error, ModelNotFound):
            self._remove(entry)
        else:
            self._changed(entry)

    def engine_changed(self, entry: Entry[R], change: EngineChange) -> None:
        """Follow the engine's own life once the model is loaded."""
        alive = entry.status in ("loaded", "recovering")
        if alive and change.state == "recovering":
            entry.status = "recovering"
            entry.error = ServiceUnavailable(change.reason or "The engine died.")
        elif entry.status == "recovering" and change.state == "ready":
            entry.status, entry.error = "loaded", None
        else:
            return
        entry.retry_at = self._clock() + (change.retry_in_s or 0.0) + 1.0
        self._changed(entry)

    def load_progressed(
        self, entry: Entry[R], fraction: float, eta_s: float | None, download: Download | None
    ) -> None:
        """Keep a load's progress for readers."""
        entry.progress, entry.eta_s, entry.download = fraction, eta_s, download
        if not entry.replaced:
            self._on_progress(entry.model_id, fraction, eta_s, download)

    # ── unloads ─────────────────────────────────────────────────────────────────────────────

    async def unload(self, model_id: str) -> None:
        """End a model and return when its memory is free; bounded by ``unload_s`` + the stop.

        Raises:
            ModelNotFound: It is not in the table.
        """
        entry = self.get(model_id)
        self._end(entry)
        await entry.gone.wait()

    def _end(self, entry: Entry[R]) -> None:
        """Start the end of an entry; idempotent."""
        if entry.ending is not None:
            return
        if entry.status == "failed":
            self._remove(entry)
            return
        entry.status = "unloading"
        self._leaving.add(entry)
        entry.ending = asyncio.create_task(self._unload(entry), name=f"unload {entry.model_id}")
        if not entry.replaced:
            self._changed(entry)

    async def _unload(self, entry: Entry[R]) -> None:
        try:
            if entry.work is not None and not entry.work.done():
                entry.work.cancel()
                await asyncio.wait([entry.work])
            if entry.resident is not None:
                await entry.resident.finish(self._unload_s)
                await entry.resident.stop()
        finally:
            self._leaving.discard(entry)
            entry.gone.set()
            self._remove(entry)

    def _remove(self, entry: Entry[R]) -> None:
        if self._entries.get(entry.model_id) is entry:
            del self._entries[entry.model_id]
            self._on_gone(entry.model_id)

    def sweep(self, idle_ttl_s: float, wanted: Collection[str] = ()) -> None:
        """Unload what nobody used for ``idle_ttl_s`` seconds, 0 keeps everything; and forget the
        loads that failed long ago, but for those of models that are ``wanted`` here."""
        now = self._clock()
        for entry in list(self._entries.values()):
            idle = entry.resident.idle_secs(now) if entry.resident is not None else 0.0
            if idle_ttl_s and entry.status == "loaded" and idle > idle_ttl_s:
                self._end(entry)
            old = entry.status == "failed" and now - entry.failed_at > FAILED_FOR_S
            if old and entry.model_id not in wanted:
                self._remove(entry)

    async def close(self, unload_s: float) -> None:
        """End everything, at once; running requests may finish for ``unload_s`` seconds."""
        self.draining = True
        self._unload_s = unload_s
        for entry in list(self._entries.values()):
            self._end(entry)
        tasks = [entry.ending for entry in self._leaving if entry.ending is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _changed(self, entry: Entry[R]) -> None:
        if not entry.replaced:
            self._on_model(entry.listing())


class _Watch(Generic[R]):
    """Binds a load to its entry."""

    def __init__(self, registry: Registry[R], entry: Entry[R]) -> None:
        self._registry = registry
        self._entry = entry
        self._last: EngineChange | None = None

    def progress(
        self, fraction: float, eta_s: float | None, download: Download | None = None
    ) -> None:
        self._registry.load_progressed(self._entry, fraction, eta_s, download)

    def engine(self, change: EngineChange) -> None:
        self._last = change
        self._registry.engine_changed(self._entry, change)

    def catch_up(self) -> None:
        """An engine that died between its first answer and the end of the load is recovering."""
        if self._last is not None and self._last.state != "ready":
            self._registry.engine_changed(self._entry, self._last)


def _retrieve(outcome: asyncio.Future[R]) -> None:
    """A failed load that nobody waits for is no unhandled exception."""
    if not outcome.cancelled():
        outcome.exception()
