"""How a record lies in the file. Native byte order: the file never leaves its machine.

::

    file    ┌ header 4096 ┬ record 0 ┬ record 1 ┬ …
    record  ┌ 0: valid ┬ 8: attempt, epoch, started ┬ 32: counts A ┬ 96: counts B ┬ 160: texts
    counts  state, granted, prompt, cached, output, reasoning, discarded   (eight bytes each)

``valid`` says which counts hold: 0 neither (the record is free), 1 A, 2 B. An update fills the
other block and then changes that one byte, so a process that dies in between leaves the counts
before the update, never a mixture.
``output`` and then ``reasoning`` may also be renewed where they stand (``SAID``): each is one
aligned store of eight bytes, which a process has made or has not.
"""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Final, get_args

from helexa.core.fleet import RecordState, RequestRecord

MAGIC: Final = b"helexa request records 1"
HEADER_BYTES: Final = 4096
RECORD_BYTES: Final = 704

STATES: Final[tuple[RecordState, ...]] = get_args(RecordState)
STATE_CODES: Final[dict[RecordState, int]] = {state: n for n, state in enumerate(STATES)}
FINAL: Final[frozenset[RecordState]] = frozenset(
    {"complete", "cut", "cancelled", "failed", "node_lost"}
)

BLOCKS: Final = (32, 96)
COUNTS: Final = struct.Struct("=7Q")
SAID: Final = struct.Struct("@2Q")  # native: not written byte by byte
SAID_AT: Final = (0, *(block + 4 * 8 for block in BLOCKS))
_FIXED: Final = struct.Struct("=QQd")
_FIXED_AT: Final = 8
_TEXTS_AT: Final = 160
_WIDTHS: Final = (128, 64, 224, 64, 64)
_BEGUN: Final = struct.Struct("=7x QQd 7Q 8x 64x 128s 64s 224s 64s 64s")
"""A whole record with its counts in A, from behind ``valid`` on."""


def counts_of(record: RequestRecord) -> tuple[int, int, int, int, int, int, int]:
    """The changing part of ``record``."""
    return (
        STATE_CODES[record.state],
        record.granted,
        record.prompt,
        record.cached,
        record.output,
        record.reasoning,
        record.discarded,
    )


def pack_begun(memory: mmap, at: int, record: RequestRecord, started: float) -> None:
    """Write the record at ``at``, all but the byte that makes it valid.

    A text that is longer than its field is cut at its end; only a model's path can be.
    """
    _BEGUN.pack_into(
        memory,
        at + 1,
        record.attempt,
        record.epoch,
        started,
        *counts_of(record),
        record.request_id.encode(),
        record.gateway.encode(),
        record.model.encode(),
        record.account_id.encode(),
        record.key_id.encode(),
    )


def unpack(data: bytes) -> tuple[RequestRecord, float] | None:
    """A record and when it began, from its ``RECORD_BYTES`` bytes; None when it is free or not
    one of ours."""
    valid = data[0]
    if valid not in (1, 2):
        return None
    state, granted, prompt, cached, output, reasoning, discarded = COUNTS.unpack_from(
        data, BLOCKS[valid - 1]
    )
    if state >= len(STATES):
        return None
    attempt, epoch, started = _FIXED.unpack_from(data, _FIXED_AT)
    texts = _unpack_texts(data)
    record = RequestRecord(
        request_id=texts[0],
        attempt=attempt,
        gateway=texts[1],
        epoch=epoch,
        model=texts[2],
        state=STATES[state],
        granted=granted,
        prompt=prompt,
        cached=cached,
        output=output,
        reasoning=reasoning,
        discarded=discarded,
        account_id=texts[3],
        key_id=texts[4],
    )
    return record, started


def _unpack_texts(data: bytes) -> list[str]:
    texts, at = [], _TEXTS_AT
    for width in _WIDTHS:
        texts.append(data[at : at + width].rstrip(b"\0").decode("utf-8", "ignore"))
        at += width
    return texts
