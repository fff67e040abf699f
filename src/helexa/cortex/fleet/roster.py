"""Which nodes there are: from cortex.toml, re-read while we run, and from the administration.

::

    cortex.toml changed, SIGHUP ──▶ follow: only what the file changed is changed
    POST /admin/nodes ────────────▶ add     kept over restarts
    DELETE /admin/nodes/NAME ─────▶ remove  what runs there goes on
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from helexa.core.errors import InvalidRequestBody
from helexa.core.settings import SettingsError
from helexa.cortex.fleet.client import tls_of
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.settings import NeuronSettings, check_neurons
from helexa.cortex.watched import Watched


class Door(Protocol):
    """Makes the ways to a node, and takes them away."""

    def check(self, node: NeuronSettings) -> None:
        """See whether it could be opened.

        Raises:
            SettingsError: Its ``ca`` cannot be used.
        """

    def open(self, node: NeuronSettings) -> None:
        """Watch it and prepare its connections. Raises as ``check``."""

    async def close(self, name: str) -> None:
        """Forget it; what runs there goes on."""


class Roster:
    """Owner of the list of nodes.

    Args:
        door: Acts on the fleet and on the connections.
        said: Told of every change, for the log.
    """

    def __init__(
        self, door: Door, said: Callable[[str, str], object] = lambda _what, _name: None
    ) -> None:
        self._door = door
        self._said = said
        self._file: dict[str, NeuronSettings] = {}
        self._nodes: dict[str, NeuronSettings] = {}
        # A node that goes takes its connections along: not those of one that comes by its name.
        self._changing = asyncio.Lock()

    def origin(self, name: str) -> str:
        """``file``, or ``admin`` for a node that the administration has added."""
        return "file" if name in self._file else "admin"

    def added(self) -> tuple[NeuronSettings, ...]:
        """The nodes that the administration has added, for a later life."""
        return tuple(node for name, node in self._nodes.items() if name not in self._file)

    def start(self, nodes: Iterable[NeuronSettings], added: Iterable[NeuronSettings] = ()) -> None:
        """The nodes of the file as the gateway starts, and those added in an earlier life.

        An added one that contradicts the file by now is left out.

        Raises:
            SettingsError: One of the file's cannot be used.
        """
        for node in nodes:
            self._file[node.name] = node
            self._open(node)
        for node in added:
            try:
                check_neurons([*self._nodes.values(), node], "neurons")
                self._open(node)
            except SettingsError:
                self._said("not added again", node.name)

    async def follow(self, nodes: Iterable[NeuronSettings]) -> list[str]:
        """Take over what the file says now; returns what was changed, in words.

        What the file did not change stays, also what the administration did to it.

        Raises:
            SettingsError: It contradicts itself or what was added since; nothing is changed.
        """
        async with self._changing:
            return await self._follow({node.name: node for node in nodes})

    async def _follow(self, now: dict[str, NeuronSettings]) -> list[str]:
        gone = [name for name in self._file if name not in now]
        fresh = [node for name, node in now.items() if self._file.get(name) != node]
        stay = [n for n in self._nodes.values() if n.name not in gone and n.name not in now]
        check_neurons([*stay, *now.values()], "neurons")
        for node in fresh:
            self._door.check(node)
        changes = []
        for name in gone:
            await self._close(name)
            changes.append(f"removed {name}")
        for node in fresh:
            changes.append(f"{'changed' if node.name in self._nodes else 'added'} {node.name}")
            await self._close(node.name)
            self._open(node)
        self._file = now
        return changes

    async def add(self, node: NeuronSettings) -> None:
        """Take one more in.

        Raises:
            InvalidRequestBody: There is one of that name or endpoint, or it cannot be used.
        """
        async with self._changing:
            try:
                check_neurons([*self._nodes.values(), node], "neurons")
                self._open(node)
            except SettingsError as error:
                # It is an order, and no line of a file.
                said = str(error).removeprefix(f"neurons: neurons[{len(self._nodes)}].")
                raise InvalidRequestBody(f"{said}.") from error
        self._said("added", node.name)

    async def remove(self, name: str) -> bool:
        """Take one out; False when there is none of that name.

        A node of the file comes back when the file changes it, or with a restart.
        """
        async with self._changing:
            if name not in self._nodes:
                return False
            await self._close(name)
        self._said("removed", name)
        return True

    def _open(self, node: NeuronSettings) -> None:
        self._door.open(node)
        self._nodes[node.name] = node

    async def _close(self, name: str) -> None:
        if self._nodes.pop(name, None) is not None:
            await self._door.close(name)


class NodesFile:
    """cortex.toml as far as its nodes go; re-read when it changes.

    Args:
        path: Watched; None is a gateway without a file.
        read: The nodes it lists now; blocking.
    """

    def __init__(
        self, path: Path | None, read: Callable[[], tuple[NeuronSettings, ...]], roster: Roster
    ) -> None:
        self._read = read
        self._roster = roster
        self._watched = Watched(path)

    async def refresh(self, *, asked: bool = False) -> list[str]:
        """Take over what changed; what that was, in words.

        Args:
            asked: Read it even if it looks the same.

        Raises:
            SettingsError: The file cannot be used; the nodes stay what they were.
        """
        if not self._watched.changed(asked=asked):
            return []
        return await self._roster.follow(await asyncio.to_thread(self._read))


class FleetDoor:
    """The real ``Door``.

    Args:
        opened: Makes the way of a node, in links and fleet.
        closed: Forgets the connections.
    """

    def __init__(
        self,
        fleet: Fleet,
        opened: Callable[[NeuronSettings], object],
        closed: Callable[[str], object],
    ) -> None:
        self._fleet = fleet
        self._opened = opened
        self._closed = closed

    def check(self, node: NeuronSettings) -> None:
        """See ``Door``."""
        tls_of(node)

    def open(self, node: NeuronSettings) -> None:
        """See ``Door``."""
        self._opened(node)

    async def close(self, name: str) -> None:
        """See ``Door``."""
        await self._fleet.remove(name)
        self._closed(name)
