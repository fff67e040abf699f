"""The owner of the file: opens, updates, keeps and forgets records."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import msgspec

from helexa.core.errors import Overloaded, ServiceUnavailable
from helexa.core.fleet import Ack, RecordState, RequestRecord
from helexa.neuron.records.layout import (
    BLOCKS,
    COUNTS,
    FINAL,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SAID,
    SAID_AT,
    STATE_CODES,
    counts_of,
    pack_begun,
    unpack,
)

FIRST_RECORDS = 256
MOST_RECORDS = 65_536
HELD_S = 3600.0
"""A finished record waits at least so long in one life before it is given up for its age."""
_Key = tuple[str, int]
_pack_into = COUNTS.pack_into
_pack_said = SAID.pack_into


@dataclass(slots=True, eq=False)
class Row:
    """One request's record. Once it is over, writing to it does nothing."""

    _table: RecordTable
    index: int
    key: _Key
    gateway: str
    started: float
    final: bool = False

    def write(self, record: RequestRecord) -> None:
        """Replace state and counts by those of ``record``; its identity is the row's own.

        A final state keeps the record for its gateway, or ends it when there is none.
        """
        if self.index < 0 or self.final:
            return
        table = self._table
        table.store(self.index, counts_of(record))
        if record.state in FINAL:
            self.final = True
            table.ended(self)

    def update(
        self,
        state: RecordState,
        granted: int,
        counts: tuple[int, int, int, int, int],
    ) -> None:
        """As ``write``, for a state that is not final, without a record: done at every event.

        Args:
            counts: prompt, cached, output, reasoning, discarded.
        """
        if self.index < 0 or self.final:
            return
        memory, at = self._table._memory, HEADER_BYTES + self.index * RECORD_BYTES  # noqa: SLF001
        other = 2 if memory[at] == 1 else 1
        _pack_into(memory, at + BLOCKS[other - 1], STATE_CODES[state], granted, *counts)
        memory[at] = other

    def said(self, output: int, reasoning: int) -> None:
        """More of an answer whose other counts stand; done at every token."""
        if self.index < 0 or self.final:
            return
        memory, at = self._table._memory, HEADER_BYTES + self.index * RECORD_BYTES  # noqa: SLF001
        _pack_said(memory, at + SAID_AT[memory[at]], output, reasoning)

    def forget(self) -> None:
        """Nobody will ask for it; idempotent."""
        self._table.free(self)


@dataclass(slots=True)
class RecordTable:
    """All records of a node.

    Running requests always have a record. Finished ones stay until they are acknowledged, or
    until they ``expire``; when ``most`` records are reached, the oldest finished one is given up.
    What is given up is counted in ``lost``; ``set_aside`` is where a file went that could not be
    read.

    Args:
        path: The file; created if it is missing.
        clock: Wall-clock seconds, for ``started``.
        most: Most records.
        steady: Monotonic seconds: a wall clock that is set right makes nothing older.
    """

    path: Path
    clock: Callable[[], float]
    most: int = MOST_RECORDS
    steady: Callable[[], float] = monotonic
    lost: int = 0
    set_aside: Path | None = None
    _file: int = -1
    _memory: mmap.mmap = field(init=False)
    _capacity: int = 0
    _free: list[int] = field(default_factory=list)
    _rows: dict[int, Row] = field(default_factory=dict)
    _by_key: dict[_Key, list[Row]] = field(default_factory=dict)
    _finished: dict[Row, float] = field(default_factory=dict)  # held since, by the steady clock

    def __post_init__(self) -> None:
        self._file = _open_locked(self.path)
        size = os.fstat(self._file).st_size
        if size and not _is_ours(self._file, size):
            self._set_aside()
            size = 0
        if not size:
            self._create()
        self._map()
        self._adopt()

    def __len__(self) -> int:
        return len(self._rows)

    # ── a request's life ────────────────────────────────────────────────────────────────────

    def open(self, record: RequestRecord) -> Row:
        """A record for a request that begins.

        Raises:
            Overloaded: ``most`` requests run at once.
        """
        index = self._free.pop() if self._free else self._take_free()
        memory, at, started = self._memory, HEADER_BYTES + index * RECORD_BYTES, self.clock()
        pack_begun(memory, at, record, started)
        memory[at] = 1  # from here on it exists
        return self._add(index, record, started)

    def store(self, index: int, counts: tuple[int, ...]) -> None:
        """Replace the counts of record ``index``."""
        memory, at = self._memory, HEADER_BYTES + index * RECORD_BYTES
        other = 2 if memory[at] == 1 else 1
        COUNTS.pack_into(memory, at + BLOCKS[other - 1], *counts)
        memory[at] = other

    def ended(self, row: Row) -> None:
        """``row`` is final: it stays for its gateway, or goes when there is none."""
        if row.gateway:
            self._finished[row] = self.steady()
        else:
            self.free(row)

    def free(self, row: Row) -> None:
        """Forget ``row``; idempotent."""
        if row.index < 0:
            return
        self._memory[self._at(row.index)] = 0
        self._free.append(row.index)
        del self._rows[row.index]
        self._finished.pop(row, None)
        same = self._by_key[row.key]
        same.remove(row)
        if not same:
            del self._by_key[row.key]
        row.index = -1

    # ── what gateways ask ───────────────────────────────────────────────────────────────────

    def snapshot(self, gateway: str | None = None) -> list[RequestRecord]:
        """Running and unacknowledged records, oldest first; all, or those of one gateway."""
        found = []
        for row in self._rows.values():
            if gateway is None or row.gateway == gateway:
                read = self._read(row.index)
                if read is not None:
                    found.append(read[0])
        return found

    def acknowledge(self, request_id: str, attempt: int) -> bool:
        """Forget the finished record of one attempt; False when there is none (any more)."""
        rows = [row for row in self._by_key.get((request_id, attempt), ()) if row.final]
        for row in rows:
            self.free(row)
        return bool(rows)

    def ack(self, acks: Iterable[Ack]) -> int:
        """Forget all these; how many there were."""
        return sum(self.acknowledge(ack.request_id, ack.attempt) for ack in acks)

    def expire(self, older_than_s: float) -> int:
        """Give up finished records of requests that began longer ago: their gateway is not
        coming back. Returns how many; they are counted in ``lost``.

        Each has been here for ``HELD_S`` of this life too: a node without a battery starts in the
        past, and its clock is set right while gateways are still on their way.
        """
        before = self.clock() - older_than_s
        since = self.steady() - min(older_than_s, HELD_S)
        held = self._finished.items()
        old = [row for row, at in held if row.started < before and at <= since]
        for row in old:
            self.free(row)
        self.lost += len(old)
        return len(old)

    def sync(self) -> None:
        """Write everything to disk, which bounds what a power cut loses. Blocks: call it in a
        thread, about once a second."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file; records stay in it."""
        if self._file >= 0:
            self._memory.close()
            os.close(self._file)
            self._file = -1

    # ── the file ────────────────────────────────────────────────────────────────────────────

    def _adopt(self) -> None:
        """Take over what an earlier life left: what ran then is lost, what was finished waits."""
        for index in range(self._capacity):
            read = self._read(index)
            if read is None or not read[0].gateway:
                self._memory[self._at(index)] = 0
                self._free.append(index)
                continue
            record, started = read
            row = self._add(index, record, started)
            if record.state not in FINAL:
                self.store(index, counts_of(msgspec.structs.replace(record, state="node_lost")))
            row.final = True
            self._finished[row] = self.steady()
        self._free.reverse()  # taken from the end: the first records are reused first

    def _add(self, index: int, record: RequestRecord, started: float) -> Row:
        key = record.request_id, record.attempt
        row = self._rows[index] = Row(self, index, key, record.gateway, started)
        same = self._by_key.get(key)
        if same is None:
            self._by_key[key] = [row]
        else:
            same.append(row)
        return row

    def _take_free(self) -> int:
        if not self._free and self._capacity < self.most:
            with contextlib.suppress(OSError):  # a full disk: make do with what there is
                self._grow(min(2 * self._capacity, self.most))
        if not self._free and self._finished:
            self.lost += 1
            self.free(next(iter(self._finished)))
        if not self._free:
            raise Overloaded(
                f"{self._capacity} requests run on this node at once, no more can be recorded. "
                "Ask again later, or ask another node.",
                retry_after_s=5,
            )
        return self._free.pop()

    def _grow(self, capacity: int) -> None:
        before = self._capacity
        _reserve(self._file, capacity)
        self._memory.close()
        self._map()
        self._free.extend(range(self._capacity - 1, before - 1, -1))

    def _map(self) -> None:
        size = os.fstat(self._file).st_size
        self._capacity = (size - HEADER_BYTES) // RECORD_BYTES
        self._memory = mmap.mmap(self._file, size)

    def _read(self, index: int) -> tuple[RequestRecord, float] | None:
        at = self._at(index)
        return unpack(self._memory[at : at + RECORD_BYTES])

    def _at(self, index: int) -> int:
        return HEADER_BYTES + index * RECORD_BYTES

    def _create(self) -> None:
        try:
            _reserve(self._file, min(FIRST_RECORDS, self.most))
            os.pwrite(self._file, MAGIC, 0)
        except OSError as error:
            raise ServiceUnavailable(
                f"request records {self.path} cannot be written: {error.strerror}. Free some "
                "space, or set state_dir to another disk."
            ) from error

    def _set_aside(self) -> None:
        """The file is not one of ours, or damaged: keep it for whoever wants to look."""
        os.close(self._file)
        self.set_aside = self.path.with_name(self.path.name + ".unreadable")
        with contextlib.suppress(OSError):
            self.path.replace(self.set_aside)
        self._file = _open_locked(self.path)
        os.ftruncate(self._file, 0)


def _open_locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceUnavailable(
            f"request records {path} cannot be opened: {error.strerror}. Set state_dir to a "
            "folder the node may write to."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise ServiceUnavailable(
            f"request records {path} are in use by another node. Give each its own state_dir."
        ) from error
    return file


def _reserve(file: int, records: int) -> None:
    """Give the file room for ``records`` records on the disk itself: a write to a mapped page
    that finds the disk full would end the process."""
    os.posix_fallocate(file, 0, HEADER_BYTES + records * RECORD_BYTES)


def _is_ours(file: int, size: int) -> bool:
    whole = (size - HEADER_BYTES) % RECORD_BYTES == 0 and size > HEADER_BYTES
    return whole and os.pread(file, len(MAGIC), 0) == MAGIC
