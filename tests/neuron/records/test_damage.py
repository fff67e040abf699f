"""The request records after a death in the middle of a write, and in files that are damaged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.neuron.records.made import record

from helexa.neuron.records import RecordTable
from helexa.neuron.records.layout import BLOCKS, HEADER_BYTES, MAGIC, RECORD_BYTES


@pytest.mark.parametrize(
    "content",
    [
        b"something else",
        b"x" * (HEADER_BYTES + RECORD_BYTES),
        MAGIC.ljust(HEADER_BYTES, b"\0"),
        MAGIC.ljust(HEADER_BYTES + RECORD_BYTES + 1, b"\0"),
    ],
)
def test_a_file_that_is_not_ours_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    table = RecordTable(path, time.time)
    assert table.snapshot() == []
    assert table.set_aside == path.with_name("records.unreadable")
    assert table.set_aside.read_bytes() == content
    table.open(record())
    table.close()


@pytest.mark.parametrize("place", [0, BLOCKS[0]])  # which counts hold; the state
def test_damage_inside_a_record_costs_that_record_only(
    table: RecordTable, path: Path, place: int
) -> None:
    table.open(record("req_a"))
    table.open(record("req_b"))
    table.close()
    content = bytearray(path.read_bytes())
    assert content.startswith(MAGIC)
    content[HEADER_BYTES + place] = 77
    path.write_bytes(content)
    again = RecordTable(path, time.time)
    assert [r.request_id for r in again.snapshot()] == ["req_b"]
    again.close()


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("updates", [1, 2])
def test_an_update_that_was_cut_off_leaves_the_counts_before_it(
    table: RecordTable, path: Path, updates: int, end: bool
) -> None:
    row = table.open(record())
    for _ in range(updates):  # into one block or the other
        row.update("decode", 0, (40, 0, 17, 0, 0))
    valid = path.read_bytes()[HEADER_BYTES]
    if end:
        row.write(record(state="complete", prompt=41, output=18))
    else:
        row.update("decode", 5, (41, 5, 18, 5, 5))
    table.close()
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES] = valid  # as if it had died before the last byte
    path.write_bytes(content)
    again = RecordTable(path, time.time)
    assert again.snapshot() == [record(state="node_lost", prompt=40, output=17)]
    again.close()


WRITER = """
import os, sys, time
from pathlib import Path
from helexa.core.fleet import RequestRecord
from helexa.neuron.records import RecordTable
table = RecordTable(Path(sys.argv[1]), time.time)
def begun(name, gateway):
    return table.open(RequestRecord(request_id=name, attempt=1, gateway=gateway, epoch=7, model="m",
        state="queued", granted=0, prompt=0, cached=0, output=0, reasoning=0, discarded=0))
begun("before", "")
row = begun("req_a", "gw")
begun("behind", "")
n, every = 0, int(sys.argv[2])
while True:
    for _ in range(every):
        n += 1
        row.update("decode", n, (n, n, n, n, n))
    os.write(1, n.to_bytes(8, "little"))
"""


@pytest.mark.parametrize("every", [1, 200])
def test_kill_minus_nine_at_any_moment_leaves_the_exact_counts(path: Path, every: int) -> None:
    rng = random.Random(11)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(every)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        read = os.read(writer.stdout.fileno(), 8)  # it runs
        deadline = time.monotonic() + rng.uniform(0.0, 0.08)
        while time.monotonic() < deadline:
            read += os.read(writer.stdout.fileno(), 65536)
        os.kill(writer.pid, signal.SIGKILL)
        while more := os.read(writer.stdout.fileno(), 65536):
            read += more
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        told = int.from_bytes(read[len(read) // 8 * 8 - 8 : len(read) // 8 * 8], "little")
        table = RecordTable(path, time.time)
        (left,) = table.snapshot()
        assert left.state == "node_lost"
        counts = {left.granted, left.prompt, left.cached, left.output, left.reasoning}
        assert counts == {left.discarded}
        assert told <= left.output <= told + every
        table.acknowledge("req_a", 1)
        table.close()
