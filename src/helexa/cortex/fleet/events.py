"""A node's events, read tolerantly: what is missing has a default, what is unknown is ignored."""

from __future__ import annotations

import msgspec

from helexa.core.fleet import DeviceReading, Download, Health, ModelEntry, ModelLoad, RequestRecord


class EventHead(msgspec.Struct, frozen=True):
    """Members of every event."""

    type: str = ""
    seq: int = 0
    epoch: int | None = None


class SnapshotEvent(msgspec.Struct, frozen=True):
    """``snapshot``: everything of ``/health`` and ``/models``."""

    health: Health = Health()
    models: list[ModelEntry] = []
    draining: bool | None = None


class ModelEvent(msgspec.Struct, frozen=True):
    """``model``: an entry as in ``/models``, as a member or spread over the event itself."""

    model: ModelEntry


class LoadProgressEvent(msgspec.Struct, frozen=True):
    """``load_progress``: how far a load is (0 to 1), seconds left when known, and the files while
    they are fetched."""

    id: str = ""
    model_id: str = ""
    progress: float | None = None
    eta_s: float | None = None
    download: Download | None = None


class DeviceEvent(msgspec.Struct, frozen=True):
    """``device``: readings, of all devices or of one."""

    devices: list[DeviceReading] = []
    device: DeviceReading | None = None


class AdmissionEvent(msgspec.Struct, frozen=True):
    """``admission``: live figures, of all models or of one."""

    models: list[ModelLoad] = []
    model: ModelLoad | None = None


class DrainEvent(msgspec.Struct, frozen=True):
    """``drain``: whether the node refuses new work."""

    draining: bool = True


class GrantLow(msgspec.Struct, frozen=True):
    """``grant_low``: half a slice is left of a grant (tokens)."""

    request_id: str
    attempt: int = 1
    granted: int = 0
    used: int = 0
    needed: int = 0


class RequestEnd(msgspec.Struct, frozen=True):
    """``request_end``: the final record, as a member or spread over the event itself."""

    record: RequestRecord


def read_model(data: bytes) -> ModelEntry:
    """The entry of a ``model`` event.

    Raises:
        msgspec.DecodeError: There is none.
    """
    try:
        return msgspec.json.decode(data, type=ModelEvent).model
    except msgspec.ValidationError:
        return msgspec.json.decode(data, type=ModelEntry)


def read_record(data: bytes) -> RequestRecord:
    """The record of a ``request_end`` event.

    Raises:
        msgspec.DecodeError: There is none.
    """
    try:
        return msgspec.json.decode(data, type=RequestEnd).record
    except msgspec.ValidationError:
        return msgspec.json.decode(data, type=RequestRecord)
