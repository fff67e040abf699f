"""What a request costs inside the gateway's own code, without the kernel and without the network.

A gateway is put together in this process; its clients and nodes are pieces of Python that hand it
bytes and take bytes from it. What is measured is the thread's CPU time from a request's bytes to
its answer's, with everything on: 1,000 keys, choice among eight nodes, metering, metrics, timeline,
log line. ``benchmarks/gateway.py`` says what all of that costs in a process that also reads and
writes sockets; this says, with little noise, what a change of the code is worth. Compare two
versions with ``PYTHONPATH=other/src``.

    python benchmarks/chain.py [--batches 600] [--capped]
"""

# ruff: noqa: SLF001  # it puts its own ends into a pool that would connect

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click
import msgspec
import uvloop
from kit import report
from kit.gateway import cortex_toml, key
from kit.report import Report, TableData
from kit.stub import MODEL, Stub
from load import body_of, request_of
from stub_node import STREAM_HEAD, Play

from helexa.core.settings import SettingsError
from helexa.cortex.build import Gateway, assemble
from helexa.cortex.settings import CortexSettings
from helexa.relay.pool import UpstreamPool
from helexa.relay.process import freeze_heap
from helexa.relay.server import ServerProtocol
from helexa.relay.upstream import UpstreamConnection

CAP = 10**12
CLIENTS = 32
"""Requests at once; a batch is one of each."""


class Wire(asyncio.Transport):
    """The end of a connection: counts what is written to it."""

    def __init__(self, written: Callable[[], object] = lambda: None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._written = written
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)
        self._written()

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise RuntimeError("the gateway gave a connection up")

    close = pause_reading = resume_reading = abort


def connect(pool: UpstreamPool, asked: Callable[[UpstreamConnection], object]) -> None:
    """Put a connection into a pool; ``asked`` is told whenever something is written to it."""
    connection = pool._protocol()
    connection.connection_made(Wire(lambda: asked(connection)))
    pool.open += 1
    pool._busy.add(connection)
    pool._returned(connection, keep=True)


class Chain:
    """A gateway between ``CLIENTS`` clients and as many connections to each node."""

    def __init__(self, gateway: Gateway) -> None:
        self.asked: list[UpstreamConnection] = []
        self.clients = [self._client(gateway) for _ in range(CLIENTS)]
        self.gateway = gateway
        self.play = Play()
        for node in gateway.rooms.fleet.snapshot().nodes:
            link = gateway.rooms.links.get(node.name)
            assert link is not None
            link.pool.renew()  # a connection that a poll has left would take a request to the node
            for _ in range(CLIENTS):
                connect(link.pool, lambda node: self.asked.append(node))  # noqa: PLW0108 - renewed

    def _client(self, gateway: Gateway) -> ServerProtocol:
        protocol = gateway.front.listener.connections.protocol()
        protocol.connection_made(Wire())
        return protocol

    def plain(self, requests: list[bytes]) -> float:
        """A batch of plain requests; seconds."""
        began = time.thread_time()
        for connection in self._ask(requests):
            connection.data_received(self.play.plain)
        self._flush()
        return time.thread_time() - began

    def streamed(self, requests: list[bytes]) -> float:
        """A batch of streams, each event by itself; seconds."""
        began = time.thread_time()
        asked = self._ask(requests)
        for piece in (STREAM_HEAD, *self.play.events, self.play.tail_with_usage):
            for connection in asked:
                connection.data_received(piece)
        self._flush()
        return time.thread_time() - began

    def _ask(self, requests: list[bytes]) -> list[UpstreamConnection]:
        for client, request in zip(self.clients, requests, strict=True):
            client.data_received(request)
        self._flush()
        asked, self.asked = self.asked, []
        if len(asked) != CLIENTS:
            raise SettingsError(f"{len(asked)} of {CLIENTS} requests reached a node")
        return asked

    def _flush(self) -> None:
        outbox = self.gateway.front.listener.connections.outbox
        assert outbox is not None
        outbox.flush()


async def measure(stub: Stub, batches: int, cap: int | None) -> dict[str, float]:
    """CPU µs per request, plain and streamed."""
    loop = asyncio.get_running_loop()
    settings = msgspec.toml.decode(cortex_toml(stub.urls, cap=cap), type=CortexSettings)
    gateway = assemble(settings, loop)
    await gateway.rooms.keyring.refresh()
    polls, books = (
        loop.create_task(gateway.rooms.fleet.run()),
        loop.create_task(gateway.rooms.kept.run()),
    )
    while len([n for n in gateway.rooms.fleet.snapshot().reachable if MODEL in n.models]) < len(
        stub.urls
    ):
        await asyncio.sleep(0.05)
    polls.cancel()
    await asyncio.wait([polls])
    if cap is not None:  # as a gateway does when it starts
        await gateway.rooms.ledger.learn(gateway.rooms.keyring.table.principals)
    freeze_heap()
    chain, found = Chain(gateway), dict[str, float]()
    for name, batch, stream in (("plain", chain.plain, False), ("streamed", chain.streamed, True)):
        body = body_of(MODEL, stream=stream, usage=False, max_tokens=64, kb=0)
        asks = [
            request_of("gateway", 80, key(n), body, "/v1/chat/completions") for n in range(CLIENTS)
        ]
        spent = []
        for number in range(batches if not stream else batches // 4):
            spent.append(batch(asks))
            if number % 8 == 7:  # the ledger and the log are written meanwhile
                await asyncio.sleep(0.01)
                for mail in gateway.rooms.settler._mail._nodes.values():
                    mail.acks.clear()
        # Ended requests are booked in batches of two of ours.
        warm = spent[len(spent) // 3 // 2 * 2 :]
        pairs = sorted(a + b for a, b in zip(warm[::2], warm[1::2], strict=False))
        found[name] = pairs[len(pairs) // 4] / 2 / CLIENTS * 1e6
        found[f"{name}, median"] = median(pairs) / 2 / CLIENTS * 1e6
    books.cancel()
    return found


def run(batches: int, *, capped: bool) -> Report:
    """Measure, and say it."""
    command = f"python benchmarks/chain.py --batches {batches}{' --capped' if capped else ''}"
    found = report.report("chain", "a request inside the gateway", command)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-chain-")))
        os.environ["XDG_STATE_HOME"] = str(scratch)
        stub = Stub(scratch, "--no-multiplex")
        stack.callback(stub.stop)
        costs = uvloop.run(measure(stub, batches, CAP if capped else None))
    rows = [[name, f"{us:.1f}"] for name, us in costs.items()]
    found.tables.append(
        TableData("CPU µs of the thread per request, lower quartile", ["", "µs"], rows)
    )
    return found


@click.command(help=__doc__)
@click.option("--batches", default=600, show_default=True, help="Of 32 requests.")
@click.option("--capped", is_flag=True, help="Every key has a balance, far from spent.")
@report.json_option
def main(batches: int, json_file: Path | None, *, capped: bool) -> None:
    report.finish(run(batches, capped=capped), json_file)


if __name__ == "__main__":
    main()
