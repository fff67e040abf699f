"""What a node says about itself: the bodies of its management routes.

Readers are tolerant: every field but ``id`` and ``status`` of a model has a default, unknown
fields are ignored. MB means MiB. Times are seconds unless the name says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ModelStatus = Literal["loading", "loaded", "reloading", "recovering", "unloading", "failed"]

CAPABILITIES = ("text", "tools", "reasoning", "vision", "embeddings", "rerank")
"""What a model can do, in the words that nodes and catalogues use."""


class Limit(msgspec.Struct, frozen=True):
    """Tokens: ``input`` = ``context`` − output reserve; ``output`` is the longest answer."""

    context: int
    input: int
    output: int


class Shortage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a model does not fit (MiB): what it needs of ``device`` (-1 is host memory), what is
    free there, and what may be used of that."""

    needed_mb: int
    usable_mb: int = 0
    free_mb: int = 0
    device: int = 0


class Servable(msgspec.Struct, frozen=True):
    """Whether a minimal request would be accepted right now, by the check requests meet.

    A load that failed for want of memory says so here, with its figures.
    """

    ok: bool = True
    reason: str | None = None
    detail: str | None = None
    shortage: Shortage | None = None


class Device(msgspec.Struct, frozen=True):
    """One accelerator, or the host itself (``kind = "cpu"``)."""

    index: int
    name: str = ""
    vram_total_mb: int = 0
    compute_capability: str | None = None
    kind: str = "cuda"


class DeviceReading(msgspec.Struct, frozen=True):
    """A cached reading of one device."""

    index: int
    vram_used_mb: int = 0
    vram_free_mb: int = 0
    utilization_pct: float | None = None
    temp_c: float | None = None


class LocalSocket(msgspec.Struct, frozen=True):
    """Where a node listens for callers on its own machine, beside its port.

    Args:
        path: Of the Unix socket.
        id: Another one with every life of the node.
        port: The node's own; who comes to another one comes through something in between.
    """

    path: str
    id: str
    port: int


class Discovery(msgspec.Struct, frozen=True):
    """``GET /discovery``: what the host is; does not change while the node runs.

    Args:
        socket: Told to callers on the same machine only.
        multiplex: Version of the connection that carries many; 0 where there is none.
    """

    hostname: str = ""
    os: str = ""
    kernel: str = ""
    driver_version: str | None = None
    cuda_version: str | None = None
    devices: list[Device] = []
    harnesses: list[str] = []
    cuda_unavailable_reason: str | None = None
    max_prompt_tokens: int | None = None
    socket: LocalSocket | None = None
    multiplex: int = 0


class Download(msgspec.Struct, frozen=True):
    """The part of a load that brings the model's files.

    Args:
        bytes: Of all its files, those that are here.
        file: The one that is on its way.
    """

    bytes: int = 0
    bytes_total: int = 0
    bytes_per_s: float = 0.0
    file: str = ""

    def words(self) -> str:
        """For people: ``1.2 of 4.0 GB at 110 MB/s``."""
        unit, factor = ("GB", 1e9) if self.bytes_total >= 1e9 else ("MB", 1e6)
        speed = f" at {self.bytes_per_s / 1e6:.1f} MB/s" if self.bytes_per_s else ""
        return f"{self.bytes / factor:.1f} of {self.bytes_total / factor:.1f} {unit}{speed}"


class ModelEntry(msgspec.Struct, frozen=True):
    """One model of ``GET /models``; ``download`` is there while a load brings its files.

    Args:
        loaded_as: The body of a ``POST /models/load`` that loads it like this again.
    """

    id: str
    status: str
    harness: str = ""
    devices: list[int] = []
    vram_used_mb: int = 0
    capabilities: list[str] = []
    limit: Limit | None = None
    tool_call: bool = False
    reasoning: bool = False
    servable: Servable = Servable()
    progress: float | None = None
    eta_s: float | None = None
    download: Download | None = None
    loaded_as: dict[str, Any] = {}


class ModelLoad(msgspec.Struct, frozen=True):
    """Live figures of one model in ``GET /health``; rates in tokens per second.

    ``prompt_cache_tokens`` is how much of earlier prompts is kept beside the KV cells.
    """

    id: str
    in_flight: int = 0
    queue_depth: int = 0
    max_in_flight: int = 0
    max_queue_depth: int = 0
    rejected_queue_full: int = 0
    rejected_timeout: int = 0
    rejected_principal: int = 0
    rejected_too_long: int = 0
    tok_s_prefill: float = 0.0
    tok_s_decode: float = 0.0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    prompt_cache_tokens: int = 0


class FailedActivation(msgspec.Struct, frozen=True):
    """A boot-time model that has not loaded; retried unless only a person can change why."""

    model_id: str
    error: str


class Activation(msgspec.Struct, frozen=True):
    """Progress of the boot-time loads; ``state`` is ``pre_warming`` or ``ready``."""

    state: str = "ready"
    pending: list[str] = []
    in_progress: str | None = None
    completed: list[str] = []
    failed: list[FailedActivation] = []


class Health(msgspec.Struct, frozen=True):
    """``GET /health`` of a node.

    Args:
        draining: It refuses new work; None when the node does not say.
    """

    uptime_secs: float = 0.0
    devices: list[DeviceReading] = []
    activation: Activation = Activation()
    models: list[ModelLoad] = []
    draining: bool | None = None


class NodeVersion(msgspec.Struct, frozen=True):
    """``GET /version``."""

    package_version: str = ""
    git_sha: str = ""
    git_sha_long: str | None = None
    git_dirty: bool = False
    build_timestamp: str | None = None
    python_version: str = ""
    engines: dict[str, str] = {}


RecordState = Literal[
    "queued", "prefill", "decode", "complete", "cut", "cancelled", "failed", "node_lost"
]
"""``complete`` ended by itself; ``cut`` at a grant, KV or drain edge; ``cancelled`` by the client
or gateway; ``failed`` by our own fault; ``node_lost``: running when the node's earlier life
ended. The last five are final."""


class RequestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of ``GET /requests``: what a request has cost so far (tokens).

    ``prompt`` + ``output`` is what is billed; ``discarded`` is what the engine computed and
    nobody got. ``epoch`` is the gateway's life that sent it, ``gateway`` its name.
    """

    request_id: str
    attempt: int
    gateway: str
    epoch: int
    model: str
    state: RecordState
    granted: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    discarded: int = 0
    account_id: str = ""
    key_id: str = ""


class GrantUpdate(msgspec.Struct, frozen=True):
    """One element of ``POST /requests/grants``: the new absolute grant in tokens."""

    request_id: str
    granted: int


class Ack(msgspec.Struct, frozen=True):
    """One element of ``POST /requests/ack``."""

    request_id: str
    attempt: int


class LoadRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """``POST /models/load``.

    Args:
        engine: Settings of the engine for this model, over those of the node.
    """

    model_id: str
    harness: str | None = None
    quant: str | None = None
    source: str | None = None
    tensor_parallel: int | None = None
    devices: list[int] | None = None
    engine: dict[str, Any] | None = None


class UnloadRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /models/unload``."""

    model_id: str
