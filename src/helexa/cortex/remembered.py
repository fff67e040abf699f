"""What a gateway knows besides its files, and would forget with a restart.

::

    start ──read──▶ nodes that the administration added, what loads have taught
    a change ──bell──▶ one write of the whole file, in a thread, in place of the last one

One small JSON file beside the ledger, owned by this task. It is a convenience, not a promise: a
file that cannot be read is put aside, one that cannot be written is said once, and serving goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from helexa.core.logging import Logger
from helexa.cortex.ledger.database import sqlite_path
from helexa.cortex.ledger.opening import MEMORY, default_url
from helexa.cortex.residency.learned import Lesson
from helexa.cortex.settings import NeuronSettings
from helexa.wire.bodies import UNREADABLE

MOST_LESSONS = 4096
"""Far beyond any catalogue times its fleet; the file stays under a megabyte."""
_RETRY_S = 5.0


class Memory(msgspec.Struct, frozen=True):
    """The content of the file.

    Args:
        nodes: Added by the administration; those of cortex.toml are not here.
        loads: What loads have taught, by node and model.
    """

    nodes: tuple[NeuronSettings, ...] = ()
    loads: tuple[Lesson, ...] = ()


class _Node(NeuronSettings, frozen=True, forbid_unknown_fields=False):
    """As a newer helexa may have written it: a gateway that goes back loses no node."""


class _Written(msgspec.Struct, frozen=True):
    nodes: tuple[_Node, ...] = ()
    loads: tuple[Lesson, ...] = ()


def place(ledger_url: str, port: int, environ: Mapping[str, str]) -> Path | None:
    """Where the file is: beside an SQLite ledger, which has one gateway; else in the state
    directory under the gateway's port; nowhere with a ledger that keeps nothing."""
    if ledger_url == MEMORY:
        return None
    if ledger_url.startswith("sqlite:"):
        return Path(sqlite_path(ledger_url)).with_name("fleet.json")
    return Path(sqlite_path(default_url(environ))).with_name(f"fleet-{port}.json")


class Remembered:
    """Owner of the file.

    Args:
        path: None keeps nothing.
        nodes, lessons: What is to be kept, as it stands.
    """

    def __init__(
        self,
        path: Path | None,
        nodes: Callable[[], tuple[NeuronSettings, ...]],
        lessons: Callable[[], tuple[Lesson, ...]],
        log: Logger,
    ) -> None:
        self._path = path
        self._nodes = nodes
        self._lessons = lessons
        self._log = log
        self._bell = asyncio.Event()
        self._failing = False
        self._writing: asyncio.Future[None] | None = None

    def changed(self) -> None:
        """There is something new to keep."""
        self._bell.set()

    async def run(self) -> None:
        """Write whenever something has changed, until cancelled."""
        while True:
            await self._bell.wait()
            await self.keep()
            if self._failing:
                await asyncio.sleep(_RETRY_S)

    async def keep(self) -> bool:
        """Write now if something has changed; False while there is more to write."""
        while self._writing is not None:  # one at a time, and the last word last
            await asyncio.wait([self._writing])
        if not self._bell.is_set() or self._path is None:
            self._bell.clear()
            return True
        self._bell.clear()
        memory = Memory(self._nodes(), self._lessons()[:MOST_LESSONS])
        # A thread goes on whoever waits for it, so the next write has to know of it.
        self._writing = asyncio.ensure_future(asyncio.to_thread(write, self._path, memory))
        self._writing.add_done_callback(self._written)
        await asyncio.wait([self._writing])
        return not self._bell.is_set()

    def _written(self, done: asyncio.Future[None]) -> None:
        self._writing = None
        error = done.exception()
        if error is None:
            self._failing = False
            return
        self._bell.set()
        if not self._failing:
            self._log.warning("cannot be kept", path=str(self._path), reason=str(error))
        self._failing = True


def read(path: Path | None, log: Logger) -> Memory:
    """What was kept; nothing the first time. Blocking."""
    if path is None:
        return Memory()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Written, dec_hook=_path)
    except FileNotFoundError:
        return Memory()
    except (OSError, *UNREADABLE) as error:
        log.warning("not remembered", path=str(path), reason=str(error))
        with suppress(OSError):  # where nothing can be written it stays what it is
            path.replace(path.with_suffix(".unreadable"))
        return Memory()
    nodes = (NeuronSettings(**msgspec.structs.asdict(node)) for node in found.nodes)
    return Memory(tuple(nodes), found.loads)


def write(path: Path, memory: Memory) -> None:
    """Put ``memory`` in place of what was kept, whole or not at all. Blocking.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    # An endpoint may hold a password.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(memory, enc_hook=str), indent=1))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _path(kind: type, value: object) -> object:
    return kind(str(value))
