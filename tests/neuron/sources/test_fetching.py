"""The process that brings files, and the parts it is made of."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.neuron.sources.rig import WEIGHTS, Stand

from helexa.core.errors import InternalError
from helexa.neuron.sources.fetching.check import Follower
from helexa.neuron.sources.fetching.download import Speed, download
from helexa.neuron.sources.fetching.http import plain_etag, retry_after
from helexa.neuron.sources.fetching.job import DownloadError, FileJob, Job, Told
from helexa.neuron.sources.fetching.transfer import bring

PATIENCE_S = 60.0


def file_job(stand: Stand, folder: Path, name: str = "m-Q8_0.gguf") -> FileJob:
    content = (stand.hub.repositories.root / "org/m" / name).read_bytes()
    tag = hashlib.sha256(content).hexdigest()
    return FileJob(
        name,
        f"{stand.hub.url}/org/m/resolve/main/{name}",
        len(content),
        f"sha256:{tag}",
        str(folder / "blobs" / tag),
        str(folder / "snapshot" / name),
        str(folder / "locks" / tag),
    )


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.incomplete"))


async def until_written(folder: Path, least: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while written(folder) < least:
            await asyncio.sleep(0.01)


def shown(pid: int) -> bytes:
    """What others may read of a process."""
    place = Path(f"/proc/{pid}")
    return (place / "cmdline").read_bytes() + (place / "environ").read_bytes()


def workers(model: str) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"helexa.neuron.sources.fetching.worker" in words and model.encode() in words:
            found.append(int(place.parent.name))
    return found


def test_a_token_is_in_no_command_line_and_in_no_message(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    job = Job((), (file_job(stand, tmp_path),), {"Authorization": "Bearer secret"})
    assert "secret" not in repr(job)
    stand.hub.faults.drip = 2_000_000
    lines: list[bytes] = []

    async def look() -> None:
        task = asyncio.create_task(download(job, "org/token", lambda _: None))
        await until_written(tmp_path, 1)
        lines.extend(shown(pid) for pid in workers("org/token"))
        stand.hub.faults.drip = None
        await task

    asyncio.run(look())
    assert lines
    assert not any(b"secret" in line for line in lines)


def test_cancelling_ends_the_process_and_keeps_the_bytes(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    stand.hub.faults.drip = 1_000_000
    job = Job((), (file_job(stand, tmp_path),))

    async def cancel() -> list[int]:
        task = asyncio.create_task(download(job, "org/cancelled", lambda _: None))
        await until_written(tmp_path, 200_000)
        running = workers("org/cancelled")
        task.cancel()
        await asyncio.wait([task])
        return running

    assert asyncio.run(cancel())
    assert workers("org/cancelled") == []
    (part,) = tmp_path.rglob("*.incomplete")
    assert part.read_bytes() == WEIGHTS[: part.stat().st_size]


def test_a_process_that_dies_is_an_error_with_its_last_words(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    stand.hub.faults.drip = 1_000_000
    job = Job((), (file_job(stand, tmp_path),))

    async def kill() -> None:
        task = asyncio.create_task(download(job, "org/killed", lambda _: None))
        await until_written(tmp_path, 1)
        for pid in workers("org/killed"):
            os.kill(pid, signal.SIGKILL)
        await task

    with pytest.raises(InternalError, match="download of org/killed ended unexpectedly"):
        asyncio.run(kill())


def test_a_process_ends_with_whoever_started_it(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    stand.hub.faults.drip = 200_000
    job = Job((), (file_job(stand, tmp_path),))
    command = [sys.executable, "-m", "helexa.neuron.sources.fetching.worker", "--model", "org/o"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as worker:
        assert worker.stdin is not None
        worker.stdin.write(msgspec.json.encode(job) + b"\n")
        worker.stdin.flush()
        asyncio.run(until_written(tmp_path, 1))
        worker.stdin.close()
        assert worker.wait(PATIENCE_S) == -signal.SIGKILL


def test_several_files_come_side_by_side_and_are_told_of_together(
    stand: Stand, tmp_path: Path
) -> None:
    names = [f"m-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for number, name in enumerate(names):
        stand.write(f"org/m/{name}", bytes([number]) + WEIGHTS)
    told: list[Told] = []

    def tell(event: Told) -> None:
        told.append(event)
        if len({event.file for event in told}) > 1 and event.done <= len(WEIGHTS):
            stand.hub.faults.drip = None  # two move and neither is whole: no need to wait on

    job = Job((), tuple(file_job(stand, tmp_path, name) for name in names), every_s=0.02)
    stand.hub.faults.drip = 50_000
    asyncio.run(download(job, "org/several", tell))
    assert told[-1].done == 3 * (len(WEIGHTS) + 1)
    assert stand.hub.faults.drip is None, "only one of them was ever on its way"


def test_the_first_file_that_cannot_be_had_ends_the_others(stand: Stand, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        stand.write(f"org/m/{name}", name.encode() + WEIGHTS)
    one, two = (file_job(stand, tmp_path, name) for name in ("a.gguf", "b.gguf"))
    gone = msgspec.structs.replace(two, url=two.url + ".gone")
    stand.hub.faults.drip = 100_000
    with pytest.raises(DownloadError) as refused:
        asyncio.run(download(Job((), (one, gone)), "org/gone", lambda _: None))
    assert (refused.value.failed.kind, refused.value.failed.status) == ("missing", 404)
    assert not Path(one.blob).exists(), "alone it would have taken half a minute more"


@pytest.mark.parametrize(("number", "kind"), [
    (errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EROFS, "unwritable"),
])  # fmt: skip
def test_a_full_disk_is_told_apart_from_one_that_cannot_be_written(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    job = file_job(stand, tmp_path)
    real = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if at > 1_000_000:
            raise OSError(number, os.strerror(number))
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DownloadError, match="cannot be written") as refused:
        bring(job, Job((), (job,)), lambda _: None)
    assert refused.value.failed.kind == kind


def test_a_folder_that_cannot_be_made_is_named(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf")
    (tmp_path / "blobs").write_bytes(b"a file")
    job = file_job(stand, tmp_path)
    with pytest.raises(DownloadError, match=f"{tmp_path}/blobs") as refused:
        asyncio.run(download(Job((), (job,)), "org/unwritable", lambda _: None))
    assert refused.value.failed.kind == "unwritable"


@pytest.mark.parametrize("kind", ["sha256", "git-sha1"])
def test_a_file_is_hashed_while_it_grows(tmp_path: Path, kind: str) -> None:
    content = WEIGHTS + b"end"
    head = b"blob %d\0" % len(content) if kind == "git-sha1" else b""
    name = "sha1" if kind == "git-sha1" else "sha256"
    digest = hashlib.new(name, head + content, usedforsecurity=False).hexdigest()
    with (tmp_path / "file").open("w+b") as file:
        follower = Follower(file.fileno(), f"{kind}:{digest}", len(content))
        for at in range(0, len(content), 700_000):
            os.pwrite(file.fileno(), content[at : at + 700_000], at)
            follower.written(min(len(content), at + 700_000))
        follower.written(10)  # begun anew, over the same bytes
        assert follower.matches()
        other = Follower(file.fileno(), f"{kind}:{digest}", len(content))
        other.written(len(content) - 1)
        assert not other.matches()


def test_the_rate_is_that_of_the_last_seconds() -> None:
    now = 0.0
    speed = Speed(lambda: now)
    assert speed.at(0) == 0.0
    rates = []
    for second in range(1, 21):
        now = float(second)
        rates.append(speed.at(1000 * min(second, 10)))
    assert rates[9] == pytest.approx(1000.0)
    assert rates[-1] == 0.0
    now = 21.0
    assert speed.at(500) == 0.0, "begun anew: no rate below zero"


@pytest.mark.parametrize(("value", "seconds"), [
    (None, None), ("", None), ("7", 7.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
])  # fmt: skip
def test_what_a_server_asks_to_wait_is_read(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_an_entity_tag_is_read_without_its_quotes() -> None:
    assert [plain_etag(tag) for tag in ('"a"', 'W/"a"', "a", "")] == ["a", "a", "a", ""]
