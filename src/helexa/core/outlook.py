"""What would become of a model on a node if it were loaded now: asked before anything is.

The body of ``POST /models/plan``; also what ``helexa doctor MODEL`` shows. Sizes named ``_mb`` are
MiB, others bytes; times are seconds.
"""

from __future__ import annotations

import msgspec

from helexa.core.fleet import Limit, Shortage


class Candidate(msgspec.Struct, frozen=True):
    """One engine and whether it would run the model.

    Args:
        version: None when it is not installed.
        reason: A code, when it would not.
        detail: In words: why not, and what would help.
        why: Why it stands where it stands among the others.
    """

    engine: str
    ok: bool
    version: str | None = None
    reason: str | None = None
    detail: str | None = None
    why: str = ""


class MemoryUse(msgspec.Struct, frozen=True):
    """One device, or the host (index -1), and what the model would take of it (MiB).

    Args:
        usable_mb: Free, less what is left free on purpose.
        other_mb: Activations, logits, the engine itself.
    """

    index: int
    name: str
    total_mb: int
    free_mb: int
    usable_mb: int
    weights_mb: int = 0
    kv_mb: int = 0
    prompt_cache_mb: int = 0
    other_mb: int = 0

    @property
    def needed_mb(self) -> int:
        """All that the model takes here."""
        return self.weights_mb + self.kv_mb + self.prompt_cache_mb + self.other_mb

    @property
    def headroom_mb(self) -> int:
        """What is free and left so."""
        return self.free_mb - self.usable_mb


class ToFetch(msgspec.Struct, frozen=True):
    """What has to be fetched first.

    Args:
        rate: Bytes per second.
        measured: The rate was measured just now; otherwise it is assumed.
        seconds: At that rate; 0 when nothing is missing.
        folder: Where it would go, when known.
        disk_free: Bytes that are free there.
    """

    bytes_total: int
    bytes_missing: int
    rate: float = 0.0
    measured: bool = False
    seconds: float = 0.0
    folder: str = ""
    disk_free: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the disk has room for it."""
        return self.disk_free is None or self.bytes_missing <= self.disk_free


class Thinking(msgspec.Struct, frozen=True):
    """How the model reasons.

    Args:
        variable: The template's switch; None cannot be switched.
        forced: It always thinks first.
        levels: What ``reasoning_effort`` may be.
    """

    variable: str | None = None
    forced: bool = False
    levels: list[str] = []


class Nearest(msgspec.Struct, frozen=True):
    """A step that would make it fit: what it is, and the exact lines that do it."""

    what: str
    lines: list[str] = []


class Outlook(msgspec.Struct, frozen=True):
    """What would become of a model.

    Args:
        ok: It would be loaded now.
        possible: It could be if everything else were unloaded; true whenever ``ok`` is.
        reason, detail: Why not, as the load's refusal would say.
        source: The scheme its files come from.
        quant, quants: What was chosen, and what there is to choose from.
        engine: Who would run it.
        candidates: Every engine, in the order they were considered.
        memory: Where it would be, or where it is short.
        shortage: The figures of what does not fit.
        limit: What would be advertised.
        unsupported: What the model could do and no engine here offers.
        sampling: The model's own defaults, by the names of ``generation_config.json``.
        nearest: What would make it fit.
        notes: What else is worth knowing.
    """

    model_id: str
    ok: bool
    possible: bool = False
    reason: str | None = None
    detail: str | None = None
    source: str = ""
    format: str = ""
    architecture: str = ""
    quant: str = ""
    quants: list[str] = []
    parameters: int = 0
    weights_mb: int = 0
    context_native: int = 0
    engine: str | None = None
    candidates: list[Candidate] = []
    memory: list[MemoryUse] = []
    shortage: Shortage | None = None
    context: int = 0
    slots: int = 0
    kv_cells: int = 0
    kv_type: str = ""
    limit: Limit | None = None
    capabilities: list[str] = []
    unsupported: list[str] = []
    tool_call: bool = False
    reasoning: bool = False
    thinking: Thinking | None = None
    pooling: str | None = None
    sampling: dict[str, float] = {}
    download: ToFetch | None = None
    nearest: list[Nearest] = []
    notes: list[str] = []
