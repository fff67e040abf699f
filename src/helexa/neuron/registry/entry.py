"""One row of the table: a model's status, and the single load that everybody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from helexa.core.errors import HelexaError, InsufficientVram
from helexa.core.fleet import (
    Download,
    LoadRequest,
    ModelEntry,
    ModelLoad,
    ModelStatus,
    Servable,
    Shortage,
)


class Resident(Protocol):
    """A loaded model as the table sees it."""

    def listing(self, status: ModelStatus) -> ModelEntry:
        """Its entry of ``/models``, from cached values."""

    def figures(self) -> ModelLoad:
        """Its entry of ``/health``, from cached values."""

    def idle_secs(self, now: float) -> float:
        """Seconds since the last request ended; 0 while one runs or waits."""

    async def finish(self, within_s: float) -> None:
        """Let what runs end within ``within_s``, then end it; returns when nothing runs."""

    async def stop(self) -> None:
        """End the engine; bounded; returns when nothing of it is left."""


R = TypeVar("R", bound=Resident)


@dataclass(slots=True, eq=False)
class Entry(Generic[R]):
    """A model on its way in, loaded, or on its way out.

    Args:
        spec: What was asked for; quant and source travel with it to every later load.
        outcome: Set once, when the load ended either way; waiters share it.
        gone: Set when nothing of the model is left on the machine.
        failed_at: When its load failed (the table's clock).
        replaced: Another entry has taken this one's place in the table.
        in_line: Its files are here, and the load of another model has to end first.
    """

    spec: LoadRequest
    status: ModelStatus
    outcome: asyncio.Future[R]
    started: float
    resident: R | None = None
    error: HelexaError | None = None
    progress: float = 0.0
    eta_s: float | None = None
    download: Download | None = None
    retry_at: float = 0.0
    failed_at: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None
    ending: asyncio.Task[None] | None = None
    replaced: bool = False
    in_line: bool = False

    @property
    def model_id(self) -> str:
        """The id it is served under."""
        return self.spec.model_id

    def suits(self, spec: LoadRequest) -> bool:
        """Whether this load satisfies ``spec``: what it leaves open matches anything."""
        wanted = msgspec.structs.asdict(spec)
        mine = msgspec.structs.asdict(self.spec)
        return all(value is None or value == mine[name] for name, value in wanted.items())

    def with_changes(self, spec: LoadRequest) -> LoadRequest:
        """This load's settings with those of ``spec`` that it names."""
        named = {k: v for k, v in msgspec.structs.asdict(spec).items() if v is not None}
        return msgspec.structs.replace(self.spec, **named)

    def listing(self) -> ModelEntry:
        """The entry of ``/models`` as it stands."""
        if self.resident is not None:
            listed = self.resident.listing(self.status)
        else:
            listed = ModelEntry(self.model_id, self.status, harness=self.spec.harness or "")
        spec = msgspec.to_builtins(self.spec)
        if self.status == "loaded":
            return msgspec.structs.replace(listed, loaded_as=spec)
        loading = self.status in ("loading", "reloading")
        return msgspec.structs.replace(
            listed,
            servable=Servable(False, *self._why_not(), shortage_of(self.error)),
            progress=self.progress if loading else None,
            eta_s=self.eta_s if loading else None,
            download=self.download if loading else None,
            loaded_as=spec,
        )

    def _why_not(self) -> tuple[str, str | None]:
        reasons = {"failed": "load_failed", "unloading": "unloading"}
        if self.status == "failed" and isinstance(self.error, InsufficientVram):
            reasons["failed"] = "insufficient_vram"
        reason = reasons.get(self.status, f"model_{self.status}".replace("reloading", "loading"))
        if self.in_line and self.status in ("loading", "reloading"):
            return reason, "the load of another model on this node has to end first"
        return reason, self.error.message if self.error else None


def shortage_of(error: HelexaError | None) -> Shortage | None:
    """The figures of a load that did not fit; None for any other error."""
    if not isinstance(error, InsufficientVram):
        return None
    names = Shortage.__struct_fields__
    figures = {name: error.extras[name] for name in names if name in error.extras}
    try:
        return msgspec.convert(figures, Shortage)
    except msgspec.ValidationError:
        return None
