"""A million requests through the relay, after which its memory must be where it was when warm.

Three processes: this one asks, one relays, one answers. Of the requests most are plain, a quarter
is streamed, and some clients leave in the middle. ``--pid`` and ``--port`` soak a gateway that is
running already instead (``--path`` and ``--body`` say what to ask it).

    python benchmarks/soak.py [--requests 1000000] [--connections 64] [--slack-mb 4]

Prints the resident memory every tenth of the way and fails when it is not flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httptools
import uvloop

from helexa.relay.answer import Answer, StreamForm
from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.http1 import BadRequest, Limits
from helexa.relay.listener import Listener
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.process import freeze_heap, raise_descriptor_limit
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.wheel import Wheel

EVENT = b"data: " + b"x" * 180 + b"\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + b"y" * 400
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HEAD = b"POST %b HTTP/1.1\r\nhost: soak\r\ncontent-length: %d\r\n\r\n"


class Stub(asyncio.Protocol):
    """Answers ``/plain`` at once and everything else as eight events in two writes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_message_complete(self) -> None:
        if self.url == b"/plain":
            self.transport.write(PLAIN)
            return
        self.transport.write(STREAM + CHUNK * 4)
        asyncio.get_running_loop().call_later(
            0.002,
            lambda: self.transport.is_closing() or self.transport.write(CHUNK * 4 + b"0\r\n\r\n"),
        )


class Relay:
    """The least an application does with the relay."""

    def __init__(self, pool: UpstreamPool, wheel: Wheel) -> None:
        self.pool, self.wheel = pool, wheel
        self.form = StreamForm(b"content-type: text/event-stream\r\n", lambda: b": keep-alive\n\n")
        self.deadlines = Deadlines()
        self.tasks: set[asyncio.Task[None]] = set()

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        return b"", error.message.encode()

    def handle(self, request: Request, reply: Reply) -> None:
        task = asyncio.get_running_loop().create_task(self.run(request, reply))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        reply.on_gone = task.cancel

    async def run(self, request: Request, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        answer = Answer(reply, self.form, self.wheel, loop)
        write = None if request.path == b"/plain" else answer.write
        attempt = Attempt(self.pool, self.wheel, loop, self.deadlines, write)
        reply.on_flow = attempt.pause
        if write is not None:
            answer.accept(request.received)
        await attempt.run(HEAD % (request.path, len(request.body)), request.body)
        if attempt.failure is None and write is not None:
            answer.end()
        else:
            reply.send(attempt.status or 502, b"", attempt.body)


def ready(**figures: int) -> None:
    print(json.dumps(figures), flush=True)


async def stub() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0)
    ready(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def relay(upstream: int) -> None:
    loop = asyncio.get_running_loop()
    raise_descriptor_limit()
    wheel = Wheel(loop)
    pool = UpstreamPool(Origin("127.0.0.1", upstream), wheel, loop, idle_secs=5.0)
    listener = Listener(Relay(pool, wheel), wheel, loop, Limits())
    await listener.start("127.0.0.1", 0)
    freeze_heap()
    ready(port=listener.port)
    await asyncio.Event().wait()


class Load:
    """Closed loop over some connections; counts answers."""

    def __init__(self, port: int, path: bytes | None, body: bytes) -> None:
        self.port = port
        self.asked = 0
        self.errors = 0
        self.left = 0
        plain, streamed = path or b"/plain", path or b"/stream"
        self.plain = HEAD % (plain, len(body)) + body
        self.streamed = HEAD % (streamed, len(body)) + body

    async def run(self, until: int, connections: int) -> None:
        await asyncio.gather(*(self._connection(until) for _ in range(connections)))

    async def _connection(self, until: int) -> None:
        while self.asked < until:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(200):
                if self.asked >= until:
                    break
                self.asked += 1
                streams = self.asked % 4 == 0
                writer.write(self.streamed if streams else self.plain)
                if self.asked % 97 == 0:  # leave in the middle
                    self.left += 1
                    await reader.read(1)
                    break
                await self._answer(reader)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:13]:
            self.errors += 1
        at = head.lower().find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
        else:
            await reader.readuntil(b"0\r\n\r\n")


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")


def flat(seen: list[float], slack_mb: float) -> bool:
    """From the third reading on (the warm-up is over) nothing grows by more than the slack."""
    warm = seen[2:]
    return max(warm) - warm[0] <= slack_mb


async def soak(load: Load, pid: int, requests: int, connections: int) -> list[float]:
    seen = []
    for step in range(1, 11):
        began = time.perf_counter()
        before = load.asked
        await load.run(requests * step // 10, connections)
        rate = (load.asked - before) / (time.perf_counter() - began)
        seen.append(resident_mb(pid))
        print(
            f"{load.asked:>9,} requests  {seen[-1]:7.1f} MB resident  {rate:6.0f}/s  "
            f"{load.left:,} left early  {load.errors} errors",
            flush=True,
        )
    return seen


def child(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["port"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--slack-mb", type=float, default=4.0)
    parser.add_argument("--pid", type=int, help="a gateway that is running already")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--path", default="")
    parser.add_argument("--body", default="x" * 500)
    parser.add_argument("--role", choices=["stub", "relay"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        uvloop.run(stub() if options.role == "stub" else relay(options.port))
        return 0
    children = []
    try:
        port, pid = options.port, options.pid
        if pid is None:
            answering, upstream = child("--role", "stub")
            children.append(answering)
            relaying, port = child("--role", "relay", "--port", str(upstream))
            children.append(relaying)
            pid = relaying.pid
        load = Load(port, options.path.encode() or None, options.body.encode())
        seen = uvloop.run(soak(load, pid, options.requests, options.connections))
    finally:
        for process in children:
            process.kill()
            process.wait()
    ok = flat(seen, options.slack_mb) and load.errors == 0
    print(f"{'flat' if ok else 'NOT FLAT'}: {seen[2]:.1f} MB warm, {seen[-1]:.1f} MB at the end")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
