"""The limits a container or a systemd unit puts on this process, cgroup v1 and v2.

A limit anywhere above holds too, so every level up to the root is looked at and the tightest
counts. Inside a container the path in ``/proc/self/cgroup`` is often not mounted; then the
mount's own root is the container's group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from helexa.neuron.hardware.roots import Roots, read_int, read_text

MIB = 1 << 20
_UNLIMITED = 1 << 60
"""v1 says "no limit" with a number just under 2⁶³."""


class MemoryLimit(msgspec.Struct, frozen=True):
    """In MiB; ``used_mb`` leaves out file pages that can be dropped at once."""

    total_mb: int
    used_mb: int


def cpu_quota(roots: Roots) -> float | None:
    """Processors' worth of time that this process may use; None is unlimited."""
    quotas = [_cpu_quota(group) for group in _groups(roots, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(roots: Roots) -> MemoryLimit | None:
    """What all limits together leave this process; None is none.

    The smallest group is not always the fullest: one further up holds the neighbours too.
    """
    found = (_memory(group) for group in _groups(roots, "memory"))
    limits = [limit for limit in found if limit is not None]
    if not limits:
        return None
    total = min(limit.total_mb for limit in limits)
    free = min(limit.total_mb - limit.used_mb for limit in limits)
    return MemoryLimit(total, max(0, total - free))


def _groups(roots: Roots, controller: str) -> Iterator[Path]:
    """Folders of this process's group and those above it, for one controller."""
    mount = roots.sys / "fs" / "cgroup"
    for line in (read_text(roots.proc / "self" / "cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            yield from _upwards(mount, path)
            yield from _upwards(mount / "unified", path)
        elif controller in controllers.split(","):
            yield from _upwards(mount / controllers, path)
            yield from _upwards(mount / controller, path)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        group = mount.joinpath(*parts[:depth])
        if group.is_dir():
            yield group


def _cpu_quota(group: Path) -> float | None:
    stated = (read_text(group / "cpu.max") or "").split()  # v2: "150000 100000" or "max 100000"
    if len(stated) == 2 and stated[0].isdecimal():
        return int(stated[0]) / int(stated[1])
    quota, period = read_int(group / "cpu.cfs_quota_us"), read_int(group / "cpu.cfs_period_us")
    return quota / period if quota and quota > 0 and period else None


def _memory(group: Path) -> MemoryLimit | None:
    # Above ``memory.high`` nobody is killed, but all are slowed down until they are below it.
    for limit_files, used_file, stat_key in (
        (("memory.max", "memory.high"), "memory.current", "inactive_file"),
        (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    ):
        stated = (read_int(group / file) for file in limit_files)
        limit = min((n for n in stated if n is not None), default=_UNLIMITED)
        if limit < _UNLIMITED:
            used = max(0, (read_int(group / used_file) or 0) - _stat(group, stat_key))
            return MemoryLimit(limit // MIB, used // MIB)
    return None


def _stat(group: Path, key: str) -> int:
    for line in (read_text(group / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return 0
