"""One file: locked, resumed, written, verified, published."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from helexa.neuron.sources.fetching.check import Follower
from helexa.neuron.sources.fetching.http import BrokenError, Opened, RefusedError, open_from
from helexa.neuron.sources.fetching.job import DownloadError, Failed, FileJob, Job, Kind

LEAST, MOST = 1 << 14, 1 << 20
"""Bytes that are read at once: little from a slow line, so that little is lost with the process."""

PIECE_S = 0.1
SMOOTHING = 0.2
LOCK_POLL_S = 0.2
LONGEST_PAUSE_S = 60.0
_REFUSALS: dict[int, Kind] = {404: "missing", 410: "missing", 416: "changed"}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Tell = Callable[[int], None]
"""Told how many bytes of the file are here."""


def bring(file: FileJob, job: Job, tell: Tell) -> None:
    """Return when ``file`` is here, checked and under its name.

    A file of the wrong content is fetched once more, in case it was damaged on its way or on the
    disk of an earlier life.

    Raises:
        DownloadError: Why it cannot be had.
    """
    try:
        with _locked(file, tell):
            if _size(file.blob) != file.size:
                _receive_right(file, job, tell)
            tell(file.size)
            publish(Path(file.blob), Path(file.pointer))
    except OSError as error:
        kind: Kind = "full" if error.errno in _FULL else "unwritable"
        where = error.filename or file.blob
        raise failure(
            file, kind, f"{where} cannot be written: {error.strerror or error}"
        ) from error


def failure(
    file: FileJob,
    kind: Kind,
    message: str,
    status: int | None = None,
    retry_after_s: float | None = None,
) -> DownloadError:
    """The error for one file."""
    return DownloadError(Failed(kind, message, file.name, status, retry_after_s))


def incomplete(blob: str | Path) -> Path:
    """Where the bytes of a blob are until it is whole."""
    return Path(f"{blob}.incomplete")


def publish(blob: Path, pointer: Path) -> None:
    """Let ``pointer`` lead to ``blob``; a copy where the file system knows no links."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        fresh.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.copyfile(blob, fresh)
    fresh.replace(pointer)


def _receive_right(file: FileJob, job: Job, tell: Tell) -> None:
    """Receive until the content is right, twice at most; then it is the blob."""
    part = incomplete(file.blob)
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        if _received(file, job, part, tell):
            part.replace(file.blob)
            return
        part.unlink()
        tell(0)
    raise failure(
        file,
        "corrupt",
        f"{file.name} is not what its hub says: {file.size} bytes arrived twice whose checksum "
        f"is not {file.digest}",
    )


def _received(file: FileJob, job: Job, part: Path, tell: Tell) -> bool:
    """Bring the bytes that are missing; whether the whole is right."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        start = min(os.fstat(fd).st_size, file.size)
        os.ftruncate(fd, start)
        if not file.digest:
            _Receiver(file, job, fd, tell).run(start)
            return True
        follower = Follower(fd, file.digest, file.size)

        def written(upto: int) -> None:
            follower.written(upto)
            tell(upto)

        try:
            written(start)
            _Receiver(file, job, fd, written).run(start)
            return follower.matches()
        finally:
            follower.end()
    finally:
        os.close(fd)


class _Receiver:
    """Brings ``[start, size)`` over as many connections as it takes.

    Writes go to their offset in the file: on file systems where locks hold nobody off, two
    processes write the same bytes to the same places.
    """

    def __init__(self, file: FileJob, job: Job, fd: int, written: Tell) -> None:
        self._file = file
        self._job = job
        self._fd = fd
        self._written = written
        self._view = memoryview(bytearray(MOST))
        self._piece = LEAST
        self._rate = 0.0

    def run(self, at: int) -> None:
        """Return when the file has its size."""
        failures = 0
        while at < self._file.size:
            before = at
            try:
                at = self._connection(at)
                broken = BrokenError(
                    f"{self._file.url} ended after {at} of {self._file.size} bytes"
                )
            except BrokenError as error:
                at, broken = self._there(), error
            except RefusedError as refused:
                kind = _REFUSALS.get(refused.status, "refused")
                raise failure(self._file, kind, str(refused), refused.status) from refused
            if at < self._file.size:
                failures = 0 if at > before else failures + 1
                self._pause(failures, broken)

    def _connection(self, at: int) -> int:
        """Write what one connection brings; how far the file is then."""
        opened = open_from(self._file.url, self._job.headers, at, self._job.idle_s)
        try:
            self._same(opened)
            if opened.start > at:
                raise BrokenError(f"{self._file.url} answered from another place")
            return self._drain(opened)
        finally:
            opened.body.close()

    def _drain(self, opened: Opened) -> int:
        at = opened.start
        while at < self._file.size:
            begun = time.monotonic()
            try:
                want = min(self._piece, self._file.size - at)
                count = opened.body.readinto(self._view[:want])
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(f"{self._file.url} broke off: {error}") from error
            if not count:
                break
            self._write(count, at)
            at += count
            self._written(at)
            self._pace(count / max(1e-6, time.monotonic() - begun))
        return at

    def _write(self, count: int, at: int) -> None:
        done = 0
        while done < count:
            done += os.pwrite(self._fd, self._view[done:count], at + done)

    def _pace(self, rate: float) -> None:
        """Read as much at once as comes in ``PIECE_S``."""
        self._rate += SMOOTHING * (rate - self._rate)
        self._piece = int(min(MOST, max(LEAST, PIECE_S * self._rate)))

    def _same(self, opened: Opened) -> None:
        """The server may have another file under this name by now."""
        kind, _, digest = self._file.digest.partition(":")
        told = opened.etag.lower()
        named = kind and len(told) == len(digest) and told.isalnum() and told != digest
        if named or (opened.total is not None and opened.total != self._file.size):
            raise failure(
                self._file,
                "changed",
                f"{self._file.name} has changed at its hub while it was fetched: it has "
                f"{opened.total} bytes and the tag {told}, not {self._file.size} and {digest}",
            )

    def _there(self) -> int:
        """Bytes that are in the file, after a connection broke at an unknown place."""
        return min(os.fstat(self._fd).st_size, self._file.size)

    def _pause(self, failures: int, broken: BrokenError) -> None:
        """Wait before the next connection, or give up."""
        after = broken.retry_after_s
        if failures >= self._job.attempts or (after or 0) > LONGEST_PAUSE_S:
            raise failure(self._file, "unreachable", str(broken), None, after) from broken
        if failures:
            time.sleep(max(after or 0.0, self._job.pause_s * 2 ** (failures - 1)))


@contextlib.contextmanager
def _locked(file: FileJob, tell: Tell) -> Iterator[None]:
    """Be the only one who brings this blob; while another one does, tell how far it is."""
    path = Path(file.lock)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        while not _try_lock(fd):
            tell(max(0, _size(file.blob), _size(str(incomplete(file.blob)))))
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def _size(path: str) -> int:
    """Bytes of a file; −1 when there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a path of the job, as text
    except FileNotFoundError:
        return -1
