"""The nodes together: their tasks, and the one snapshot everyone reads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from helexa.core.fleet import RequestRecord
from helexa.core.outlook import Outlook
from helexa.cortex.fleet.client import NodeApi
from helexa.cortex.fleet.events import GrantLow
from helexa.cortex.fleet.node import NodeHooks, NodeTask, Pace
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot


def _ignore(_node: str, _event: object) -> None:
    pass


class Fleet:
    """Owner of one task per node.

    Args:
        now: Epoch seconds.
        rng: For jitter.
        on_grant_low: Called with a node's name and its event.
        on_request_end: Called with a node's name and the final record.
        on_node: Called with every new snapshot of one node.
        on_change: Called with every new snapshot, before anyone who waits for it.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        rng: random.Random,
        pace: Pace | None = None,
        on_grant_low: Callable[[str, GrantLow], object] = _ignore,
        on_request_end: Callable[[str, RequestRecord], object] = _ignore,
        on_node: Callable[[NodeSnapshot], object] = lambda _: None,
        on_change: Callable[[FleetSnapshot], object] = lambda _: None,
    ) -> None:
        self._now = now
        self._rng = rng
        self._pace = pace or Pace()
        self._hooks = NodeHooks(self._changed, on_grant_low, on_request_end)
        self._on_node = on_node
        self._on_change = on_change
        self._nodes: dict[str, NodeTask] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._snapshot = FleetSnapshot()
        self._waiters: set[asyncio.Future[None]] = set()

    def snapshot(self) -> FleetSnapshot:
        """The fleet as it is now; costs an attribute read."""
        return self._snapshot

    def api(self, name: str) -> NodeApi | None:
        """A node's management routes."""
        node = self._nodes.get(name)
        return None if node is None else node.api

    def add(self, name: str, endpoint: str, api: NodeApi) -> None:
        """Take a node in, before or while running; it is polled at once.

        Raises:
            ValueError: There is one of that name.
        """
        if name in self._nodes:
            raise ValueError(f"there is a node called {name!r} already")
        node = NodeTask(
            name,
            endpoint.rstrip("/"),
            api=api,
            hooks=self._hooks,
            now=self._now,
            rng=self._rng,
            pace=self._pace,
        )
        self._nodes[name] = node
        self._publish()
        if self._group is not None:
            self._start(self._group, name, node)

    async def remove(self, name: str) -> None:
        """Forget a node; idempotent."""
        if self._nodes.pop(name, None) is None:
            return
        self._publish()
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def run(self) -> None:
        """Watch every node until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for name, node in self._nodes.items():
                    self._start(group, name, node)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    def poll_now(self, name: str) -> None:
        """Do not wait for a node's next poll."""
        node = self._nodes.get(name)
        if node is not None:
            node.poll_now()

    def mark_draining(self, name: str, draining: bool) -> None:
        """We have told a node to drain (or to stop draining)."""
        node = self._nodes.get(name)
        if node is not None:
            node.mark_draining(draining)

    def foretold(self, name: str, outlooks: Mapping[str, Outlook]) -> None:
        """A node has said what would become of models there."""
        node = self._nodes.get(name)
        if node is not None:
            node.foretold(outlooks)

    async def wait_until(self, happened: Callable[[FleetSnapshot], bool]) -> FleetSnapshot:
        """The first snapshot, from now on, of which ``happened`` is true."""
        while not happened(self._snapshot):
            future = asyncio.get_running_loop().create_future()
            self._waiters.add(future)
            try:
                await future
            finally:
                self._waiters.discard(future)
        return self._snapshot

    def _start(self, group: asyncio.TaskGroup, name: str, node: NodeTask) -> None:
        self._tasks[name] = group.create_task(node.run(), name=f"node {name}")

    def _changed(self, node: NodeSnapshot) -> None:
        if node.name in self._nodes:
            self._on_node(node)
            self._publish()

    def _publish(self) -> None:
        nodes = tuple(node.snapshot for node in self._nodes.values())
        self._snapshot = FleetSnapshot(nodes, self._snapshot.generation + 1)
        self._on_change(self._snapshot)
        for future in self._waiters:
            if not future.done():
                future.set_result(None)
