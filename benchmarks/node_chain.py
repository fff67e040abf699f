"""What a request costs inside the node's own code, without the kernel and without the network.

As ``chain.py`` for the gateway: a node is put together in this process, its gateway and its engine
are pieces of Python that hand it bytes and take bytes from it. The engine speaks llama.cpp's
dialect from a can. Compare two versions with ``PYTHONPATH=other/src``.

What a request costs where others have had the caches meanwhile is the second column: there each
step begins with more memory read than the second level holds. The other columns are the same
whatever the machine does: the interpreter's steps and the functions it enters, but for the books,
which come later. Among requests of others each of these finds its code gone, so they say more of a
node in use than hot microseconds.

    python benchmarks/node_chain.py [--batches 200]
"""

# ruff: noqa: SLF001  # it puts its own ends into a pool that would connect

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import click
import msgspec
import uvloop
from chain import CLIENTS, Wire, connect
from costless_neuron import TOKENS, Costless, script
from kit import report
from kit.report import Report, TableData
from stub_node import STREAM_HEAD

import helexa
from helexa.core.fleet import Ack, LoadRequest
from helexa.core.logging import configure, get_logger
from helexa.neuron.build import engines
from helexa.neuron.build.node import assemble_node
from helexa.neuron.build.parts import gather
from helexa.neuron.build.serve import make_desk, serve_app
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.service import Node
from helexa.neuron.settings import NeuronSettings
from helexa.relay.books import DELAY_S
from helexa.relay.connections import Connections
from helexa.relay.http1 import Limits
from helexa.relay.process import freeze_heap
from helexa.relay.server import ServerProtocol
from helexa.relay.upstream import UpstreamConnection

SPARK = "helexa/spark"
BODY = json.dumps(
    {
        "model": SPARK,
        "messages": [{"role": "user", "content": "x" * 300}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()
PARTS = ("asked", "first token", "other tokens", "ended")
_TRACED = (str(Path(helexa.__file__).parent), "<string>")  # dataclasses write theirs there
ELSEWHERE = bytes(3 << 20)
"""Bytes that are read where caches are to hold something else; the second level has one or two."""


class Steps:
    """What the interpreter does in the node's own code while it is traced."""

    def __init__(self) -> None:
        self.bytecodes = self.calls = 0.0

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """For ``sys.settrace``."""
        if not frame.f_code.co_filename.startswith(_TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.calls += event == "call"
        self.bytecodes += event == "opcode"
        return self.trace


class Chain:
    """A node between ``CLIENTS`` connections of a gateway and as many to its engine.

    Attributes:
        clock: What ``batch`` reads before and after each part.
    """

    def __init__(self, node: Node[ServedModel], connections: Connections) -> None:
        self.clock: Callable[[], float] = time.thread_time
        self._node = node
        self._asked: list[UpstreamConnection] = []
        self._requests = 0
        self._play = script()
        self._clients = [self._client(connections) for _ in range(CLIENTS)]
        pool = node.registry.serving(SPARK).pool
        while pool._idle:
            pool._close_oldest()
        for _ in range(CLIENTS):
            connect(pool, lambda engine: self._asked.append(engine))  # noqa: PLW0108 - renewed

    @staticmethod
    def _client(connections: Connections) -> ServerProtocol:
        protocol = connections.protocol()
        protocol.connection_made(Wire())
        return protocol

    def _request(self) -> bytes:
        self._requests += 1
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n"
            f"x-helexa-gateway: bench/1\r\nx-request-id: req_{self._requests:026d}\r\n"
            "x-helexa-attempt: 1\r\nx-helexa-account-id: account\r\nx-helexa-key-id: key\r\n"
            f"x-helexa-grant: {3000 + self._requests % 1000}\r\ncontent-length: {len(BODY)}\r\n\r\n"
        )
        return head.encode() + BODY

    async def batch(self) -> list[float]:
        """A batch of streams, each event by itself; what the clock made of each of ``PARTS``."""
        requests = [self._request() for _ in self._clients]
        clock = self.clock
        marks = [clock()]
        for client, request in zip(self._clients, requests, strict=True):
            client.data_received(request)
        while len(self._asked) < CLIENTS:
            await asyncio.sleep(0)
        asked, self._asked = self._asked, []
        marks.append(clock())
        first, *others = self._play.events
        for connection in asked:
            connection.data_received(STREAM_HEAD)
            connection.data_received(first)
        marks.append(clock())
        for event in others:
            for connection in asked:
                connection.data_received(event)
        marks.append(clock())
        for connection in asked:
            connection.data_received(self._play.tail)
        while len(self._node.requests):
            await asyncio.sleep(0)
        marks.append(clock())
        self._acknowledge(CLIENTS)
        return [after - before for before, after in pairwise(marks)]

    async def alone(self) -> list[float]:
        """A stream whose steps find the caches full of something else; as ``batch``, but for the
        tokens in between, which come together."""
        first, *others = self._play.events
        spent: list[float] = []

        def asked() -> None:
            self._clients[0].data_received(self._request())

        def begun() -> None:
            self._asked[0].data_received(STREAM_HEAD)
            self._asked[0].data_received(first)

        def said() -> None:
            for event in others:
                self._asked[0].data_received(event)

        def ended() -> None:
            self._asked.pop().data_received(self._play.tail)

        for step, over in (
            (asked, lambda: self._asked),
            (begun, lambda: True),
            (said, lambda: True),
            (ended, lambda: not len(self._node.requests)),
        ):
            ELSEWHERE.count(b"1")
            began = time.thread_time()
            step()
            while not over():
                await asyncio.sleep(0)
            spent.append(time.thread_time() - began)
        self._acknowledge(1)
        return spent

    def _acknowledge(self, requests: int) -> None:
        ended = [record for record in self._node.records.snapshot() if record.state == "complete"]
        if self._node.acknowledge([Ack(r.request_id, r.attempt) for r in ended]) != requests:
            raise click.ClickException("not every request was answered whole")


def quartiles(spent: list[list[float]]) -> list[float]:
    """Lower ones of each part (µs), the first third left out."""
    columns = zip(*spent[len(spent) // 3 :], strict=True)
    return [sorted(column)[len(spent) // 6] * 1e6 for column in columns]


async def counted(chain: Chain) -> list[list[float]]:
    """Bytecodes and calls of each part of a request."""
    steps, found = Steps(), list[list[float]]()
    for clock in (lambda: steps.bytecodes, lambda: steps.calls):
        chain.clock = clock
        await asyncio.sleep(2 * DELAY_S)  # what has ended by now is booked, and not counted here
        sys.settrace(steps.trace)
        try:
            found.append([count / CLIENTS for count in await chain.batch()])
        finally:
            sys.settrace(None)
    return found


async def measure(folder: Path, batches: int) -> list[tuple[str, float, float, float, float]]:
    """CPU µs of each part of a request, hot and cold, lower quartiles; its bytecodes and calls."""
    llamacpp = {"slots": 2 * CLIENTS, "ctx": 4096}
    given = {"port": 0, "engines": {"llamacpp": llamacpp}}
    settings = msgspec.convert(given, NeuronSettings)
    settings = msgspec.structs.replace(settings, state_dir=folder)
    parts = gather(settings, os.environ)
    log = get_logger(role="neuron", node=parts.name)
    node = assemble_node(parts, log)
    app, bridge = serve_app(node, parts, make_desk(node, parts, log))
    connections = Connections(ServerProtocol, app, parts.wheel, parts.loop, Limits())
    parts.hardware.start()
    try:
        await node.registry.load(LoadRequest(SPARK))
        freeze_heap()
        chain = Chain(node, connections)
        hot, cold = list[list[float]](), list[list[float]]()
        for _ in range(batches):
            hot.append(await chain.batch())
            await asyncio.sleep(0)
        for _ in range(batches):
            cold.append(await chain.alone())
        warm = [us / CLIENTS for us in quartiles(hot)]
        return list(zip(PARTS, warm, quartiles(cold), *await counted(chain), strict=True))
    finally:
        await node.registry.close(1.0)
        await bridge.close()
        parts.records.close()
        parts.hardware.stop()


def run(batches: int) -> Report:
    """Measure, and say it."""
    setattr(engines, "LlamaCpp", Costless)  # noqa: B010 - the one seam, as in costless_neuron
    command = f"python benchmarks/node_chain.py --batches {batches}"
    found = report.report("node_chain", "a request inside the node", command)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-chain-"))
        log = stack.enter_context(Path(folder, "log").open("w"))
        sink = configure("info", log)
        stack.callback(sink.close)
        costs = uvloop.run(measure(Path(folder) / "state", batches))
    named = {name: figures for name, *figures in costs}
    once = zip(*(figures for name, figures in named.items() if name != "other tokens"), strict=True)
    named["… each of them"] = [figure / (TOKENS - 1) for figure in named["other tokens"]]
    named["begin and end together"] = [sum(figures) for figures in once]
    rows = [
        [
            name,
            f"{hot:.2f}" if hot < 10 else f"{hot:.1f}",
            f"{cold:.1f}",
            f"{codes:.0f}",
            f"{calls:.0f}",
        ]
        for name, (hot, cold, codes, calls) in named.items()
    ]
    title = "Of a streamed request: CPU µs of the thread, lower quartiles, and what is run"
    found.tables.append(TableData(title, ["", "hot", "cold", "bytecodes", "calls"], rows))
    return found


@click.command(help=__doc__)
@click.option("--batches", default=200, show_default=True, help=f"Of {CLIENTS} requests.")
@report.json_option
def main(batches: int, json_file: Path | None) -> None:
    report.finish(run(batches), json_file)


if __name__ == "__main__":
    main()
