"""Engines of an earlier life: what is written down about a running engine, and its end.

A neuron that is killed with SIGKILL cannot tidy up. Its engines end themselves (see
``lifeline``); those that could not, because they were stopped or hung, are ended by the next
neuron with the same state directory. A process is only ever signalled when its start time and
the boot are those written down, so a reused pid is safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import signal
import time
from pathlib import Path

import msgspec

from helexa.wire.bodies import UNREADABLE

_FOLDER = "engines"
_SUFFIX = ".engine.json"
_LONGEST_STEM = 96


class EngineRecord(msgspec.Struct, frozen=True):
    """Identity of a running engine: ``started`` in clock ticks after ``boot``."""

    pid: int
    started: int
    boot: str
    engine: str
    model: str


def boot_id() -> str:
    """The kernel's id of this boot; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks, None when it is gone (or only a zombie)."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (proc(5), field 3 is index 0)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def file_stem(model_id: str) -> str:
    """What the files of a model's engine are called: readable, of bounded length, and no other
    model's, as that of a name in another script or of a long path would be."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", model_id).strip("-.")
    if plain == model_id and len(plain) <= _LONGEST_STEM:
        return plain
    digest = hashlib.sha256(model_id.encode()).hexdigest()[:8]
    return f"{plain[-_LONGEST_STEM:].lstrip('-.') or 'model'}-{digest}"


def record_path(state_dir: Path, stem: str) -> Path:
    """Where the record of one engine lies."""
    return state_dir / _FOLDER / (stem + _SUFFIX)


def write_record(path: Path, pid: int, engine: str, model: str) -> None:
    """Write down a process that has just been started; a full disk does not stop a load."""
    started = start_time(pid)
    if started is None:
        return
    record = EngineRecord(pid, started, boot_id(), engine, model)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")  # whole or not at all, whatever ends us meanwhile
        try:
            fresh.write_bytes(msgspec.json.encode(record))
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def reap_previous(state_dir: Path, *, deadline_s: float = 5.0) -> list[EngineRecord]:
    """End every engine that an earlier neuron with this state directory left behind.

    Blocking; call it before serving. Returns the engines that were still there.
    """
    ended = []
    for path in sorted((state_dir / _FOLDER).glob("*" + _SUFFIX)):
        with contextlib.suppress(OSError, *UNREADABLE):
            record = msgspec.json.decode(path.read_bytes(), type=EngineRecord)
            if record.boot == boot_id() and _end(record, deadline_s):
                ended.append(record)
        path.unlink(missing_ok=True)
    return ended


def _end(record: EngineRecord, deadline_s: float) -> bool:
    """Kill the group of a recorded leader, and wait until its processes are gone."""
    leader = start_time(record.pid)
    if leader is not None and leader != record.started:
        return False  # the pid belongs to somebody else now
    members = [pid for pid in group_of(record.pid) if (start_time(pid) or 0) >= record.started]
    until = time.monotonic() + deadline_s
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _kill_and_wait(pid, max(0.0, until - time.monotonic()))
    return bool(members)


def group_of(leader: int) -> list[int]:
    """Live members of a process group whose leader also led its session."""
    members = []
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields and fields[0] != "Z" and fields[2] == fields[3] == str(leader):
            members.append(int(entry.name))
    return members


def _kill_and_wait(pid: int, timeout_s: float) -> None:
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(timeout_s * 1000)
    finally:
        os.close(fd)
