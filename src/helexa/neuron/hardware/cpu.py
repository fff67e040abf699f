"""The CPU side of a host: model, cores this process may use, instruction sets, memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import msgspec

from helexa.neuron.hardware.cgroup import cpu_quota, memory_limit
from helexa.neuron.hardware.roots import Roots, read_text

_SETS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
"""Those that decide how fast an engine is, in the kernel's names."""


class CpuFacts(msgspec.Struct, frozen=True):
    """What does not change.

    Args:
        model: Name of the processor.
        cores: Logical processors this process may use at once: affinity, then cgroup quota; as
            it was when this was read.
        cores_total: Those of the machine.
        instruction_sets: Of the ones that matter to engines, what there is.
    """

    model: str
    cores: int
    cores_total: int
    instruction_sets: tuple[str, ...]


class Memory(msgspec.Struct, frozen=True):
    """Host memory in MiB, within the cgroup's limit; free is what may be taken without swapping."""

    total_mb: int
    free_mb: int


def allowed_processors() -> int:
    """Logical processors of this process's affinity mask."""
    return len(os.sched_getaffinity(0))


def read_cpu(roots: Roots, allowed: Callable[[], int] = allowed_processors) -> CpuFacts:
    """Read the processor; never raises, a host without /proc has one nameless core."""
    lines = (read_text(roots.proc / "cpuinfo") or "").splitlines()
    pairs = [
        (name.strip(), value.strip()) for name, _, value in (ln.partition(":") for ln in lines)
    ]
    fields = dict(reversed(pairs))
    total = max(1, sum(name == "processor" for name, _ in pairs))
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    name = fields.get("model name") or fields.get("Model") or platform.machine() or "cpu"
    cores = min(total, usable_cores(roots, allowed))
    return CpuFacts(name, cores, total, tuple(s for s in _SETS if s in flags))


def usable_cores(roots: Roots, allowed: Callable[[], int] = allowed_processors) -> int:
    """Logical processors this process may use just now: quotas change, processors go offline."""
    quota = cpu_quota(roots)
    # Half a core more would be throttled, not used.
    return max(1, allowed() if quota is None else min(allowed(), int(quota)))


def read_memory(roots: Roots) -> Memory:
    """Total and free memory; the tighter of the machine's and the cgroup's."""
    found = {}
    for line in (read_text(roots.proc / "meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        digits = value.split()
        if digits and digits[0].isdecimal():
            found[name] = int(digits[0]) // 1024
    total = found.get("MemTotal", 0)
    free = found.get("MemAvailable", found.get("MemFree", 0))
    limit = memory_limit(roots)
    if limit is not None:
        free = min(free, max(0, limit.total_mb - limit.used_mb))
        total = min(total, limit.total_mb)
    return Memory(total, free)


class Busy:
    """Share of the time the processors were busy between two looks."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._last = (0, 0)

    def percent(self) -> float | None:
        """0..100 since the last call; None the first time."""
        first, _, _ = (read_text(self._roots.proc / "stat") or "").partition("\n")
        ticks = [int(part) for part in first.split()[1:9] if part.isdecimal()]
        if len(ticks) < 5:
            return None
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._last = self._last, (total, idle)
        elapsed = total - before[0]
        if not before[0] or elapsed <= 0:
            return None
        return round(100 * (1 - (idle - before[1]) / elapsed), 1)
