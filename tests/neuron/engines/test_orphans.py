"""Engines of an earlier life are ended; nobody else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from helexa.neuron.engines.orphans import (
    EngineRecord,
    boot_id,
    file_stem,
    reap_previous,
    record_path,
    start_time,
    write_record,
)


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = record_path(tmp_path, "engine")
    write_record(path, os.getpid(), "fake", "m")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    before = path.read_bytes()
    path.with_suffix(".new").mkdir()  # writing fails, as on a full disk
    write_record(path, os.getpid(), "fake", "other")
    assert path.read_bytes() == before


SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(99)"]


@pytest.fixture
def left() -> Iterator[subprocess.Popen[bytes]]:
    """A process as an engine leaves it behind: in a session of its own, deaf to pipes."""
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE, start_new_session=True) as found:
        assert found.stdout is not None
        found.stdout.readline()
        yield found
        found.kill()


def put(state: Path, record: EngineRecord) -> Path:
    path = record_path(state, "left")
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(record))
    return path


def test_an_engine_of_an_earlier_life_is_ended(
    left: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    path = record_path(tmp_path, "left")
    write_record(path, left.pid, "fake", "helexa/spark")
    ended = reap_previous(tmp_path)
    assert [(record.pid, record.model) for record in ended] == [(left.pid, "helexa/spark")]
    assert left.wait(timeout=30) == -9
    assert not path.exists()


def test_a_reused_pid_is_left_alone(left: subprocess.Popen[bytes], tmp_path: Path) -> None:
    started = start_time(left.pid)
    assert started is not None
    path = put(tmp_path, EngineRecord(left.pid, started - 1, boot_id(), "fake", "m"))
    assert reap_previous(tmp_path) == []
    assert left.poll() is None
    assert not path.exists()


def test_a_record_of_another_boot_means_nothing(
    left: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    started = start_time(left.pid)
    assert started is not None
    put(tmp_path, EngineRecord(left.pid, started, "another boot", "fake", "m"))
    assert reap_previous(tmp_path) == []
    assert left.poll() is None


def test_members_are_found_when_their_leader_is_gone(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(99)'], stdout=subprocess.DEVNULL); print(p.pid, flush=True); "
        "sys.stdin.read()"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    member = int(leader.stdout.readline())
    write_record(record_path(tmp_path, "left"), leader.pid, "fake", "m")
    leader.communicate()
    assert start_time(member) is not None
    assert len(reap_previous(tmp_path)) == 1
    assert start_time(member) is None


def test_a_record_that_cannot_be_read_is_dropped(tmp_path: Path) -> None:
    path = record_path(tmp_path, "left")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{not json")
    assert reap_previous(tmp_path) == []
    assert not path.exists()


def test_the_files_of_two_models_engines_are_never_the_same() -> None:
    ids = ["模型", "型模", "a/b", "a-b", "a b", "/" + "x" * 300, "/y" + "x" * 300, "..", "."]
    stems = [file_stem(model_id) for model_id in ids]
    assert len(set(stems)) == len(ids)
    assert all(0 < len(stem) < 128 and "/" not in stem and stem[0] != "." for stem in stems)
    assert file_stem("helexa/spark").startswith("helexa-spark-")
