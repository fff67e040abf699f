"""A PostgreSQL server of the tests' own: a temporary folder, a Unix socket, a user without rights.

The server refuses to run as root, so tests that do run it as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from tests.neuron.system.conftest import end_with_tests, until

SUPERUSER = "helexa"


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres`` of the newest installed server."""
    found = shutil.which("initdb")
    if found is not None and Path(found).resolve().with_name("postgres").exists():
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


def _user() -> str | None:
    """Whom to run as; None for the user that runs the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """A running server; ``database`` makes a fresh database."""

    def __init__(self, bin_folder: Path, folder: Path) -> None:
        self._folder = folder
        self._bin = bin_folder
        self._user = _user()
        self._names = count(1)
        self.process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._run(
            "initdb", "-D", "data", "-U", SUPERUSER, "--auth=trust", "--no-sync", "-E", "UTF8"
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it lets somebody in."""
        options = {
            "listen_addresses": "", "unix_socket_directories": str(self._folder),
            "max_connections": "60", "shared_buffers": "16MB", "fsync": "off",
            "dynamic_shared_memory_type": "mmap",  # in its folder: nothing stays in /dev/shm
        }  # fmt: skip
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", *flags],
                cwd=self._folder,
                user=self._user,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=end_with_tests,  # noqa: PLW1509 - the tests' main thread starts it
            )
        until(self._answers, 60)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it and every connection."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={self._folder}"

    def database(self) -> str:
        """The url of a new, empty database."""
        name = f"ledger{next(self._names)}"
        self._order(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """A database is not needed any more. It is 300 files: to remove those of all tests at
        once takes a busy disk longer than a test may."""
        name = url.rpartition("?")[0].rpartition("/")[2]
        self._order(f"DROP DATABASE {name} WITH (FORCE)")

    def _order(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            admin.execute(statement.encode())

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=30).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, name: str, *words: str) -> None:
        done = subprocess.run(
            [self._bin / name, *words],
            cwd=self._folder,
            user=self._user,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()


def in_memory() -> str | None:
    """A folder in memory with room for many databases; None where there is none."""
    place = Path("/dev/shm")
    fits = place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > 1 << 30
    return str(place) if fits else None


@contextmanager
def server(place: str | None = None) -> Iterator[Server]:
    """A server for the length of a ``with``, its folder in ``place`` or where others are."""
    bin_folder = binaries()
    assert bin_folder is not None
    # Not pytest's folder: that is closed to the user the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="helexa-postgres-", dir=place))
    running: Server | None = None
    try:
        running = Server(bin_folder, folder)
        yield running
    finally:
        if running is not None and running.process is not None and running.process.poll() is None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)
