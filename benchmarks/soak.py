"""A million requests through the relay, after which its memory must be where it was when warm.

Three processes: this one asks, one relays, one answers. Of the requests most are plain, a quarter
is streamed, and some clients leave in the middle. ``--gateway`` soaks a whole gateway in front of
eight nodes instead; ``--pid`` and ``--port`` one that is running already (``--path`` and ``--body``
say what to ask it).

    python benchmarks/soak.py [--requests 1000000] [--connections 64] [--slack-mb 4] [--gateway]

Prints the resident memory every tenth of the way and fails when it is not flat. It ends by itself
on however busy a machine: a client waits for ``PATIENCE_S`` and then asks again on a new
connection, every such wait is an error of the run, and after ``MOST_ERRORS`` of them it is over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import uvloop
from kit.gateway import start_cortex, wait_until_served
from kit.peers import Target
from kit.process import end_cleanly
from kit.stub import MODEL
from kit.stub import Stub as Nodes

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
PATIENCE_S = 120.0  # of a client with an answer
SPOKEN_S = 20.0  # between two lines on the way to the next tenth
MOST_ERRORS = 50
CHAT = b'{"model":"%b",%b"messages":[{"role":"user","content":"%b"}]}'
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
    """Closed loop over some connections; counts answers.

    Args:
        plain, streamed: Whole requests.
    """

    def __init__(self, port: int, plain: bytes, streamed: bytes) -> None:
        self.port = port
        self.asked = 0
        self.errors = 0
        self.left = 0
        self.plain = plain
        self.streamed = streamed

    async def run(self, until: int, connections: int) -> None:
        speaking = asyncio.create_task(self._speak(until))
        await asyncio.gather(*(self._client(until) for _ in range(connections)))
        speaking.cancel()

    @property
    def over(self) -> bool:
        return self.errors >= MOST_ERRORS

    async def _client(self, until: int) -> None:
        while self.asked < until and not self.over:
            try:
                await self._connection(until)
            except (OSError, EOFError) as error:  # TimeoutError is one of the former
                self.errors += 1
                print(f"after {self.asked:,} requests: {error!r}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.5)

    async def _connection(self, until: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for _ in range(200):
                if self.asked >= until:
                    break
                self.asked += 1
                streams = self.asked % 4 == 0
                writer.write(self.streamed if streams else self.plain)
                async with asyncio.timeout(PATIENCE_S):
                    if self.asked % 97 == 0:  # leave in the middle
                        self.left += 1
                        await reader.read(1)
                        break
                    await self._answer(reader)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:13]:
            self.errors += 1
        at = head.lower().find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")

    async def _speak(self, until: int) -> None:
        """Say on standard error how far it is, for whoever waits."""
        while True:
            before = self.asked
            await asyncio.sleep(SPOKEN_S)
            rate = (self.asked - before) / SPOKEN_S
            left = (until - self.asked) / rate if rate else float("inf")
            print(
                f"{self.asked:>9,} requests, {rate:.0f}/s, {left:.0f} s to the next line",
                file=sys.stderr,
                flush=True,
            )


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no resident memory")


def flat(seen: list[float], slack_mb: float) -> bool:
    """From the third reading on (the warm-up is over) nothing grows by more than the slack."""
    warm = seen[2:]
    return bool(warm) and max(warm) - warm[0] <= slack_mb


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
        if load.over:
            break
    return seen


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[tuple[int, int]]:
    """A process of this file's; its id and port."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, json.loads(process.stdout.readline())["port"]
        finally:
            process.kill()


def target(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[int, int, bytes, bytes]:
    """What is soaked: its port, its process, a plain and a streamed request."""
    path, body = options.path.encode(), options.body.encode()
    if options.gateway:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-soak-")))
        nodes = Nodes(scratch, "--tokens=8", "--gap-ms=0.2")
        stack.callback(nodes.stop)
        gateway, port = start_cortex(scratch, nodes.urls, core=None, keys=0)
        stack.callback(gateway.stop)
        wait_until_served(Target("helexa", port, gateway))
        pid, path = gateway.pid, b"/v1/chat/completions"
        plain = CHAT % (MODEL.encode(), b"", body)
        streamed = CHAT % (MODEL.encode(), b'"stream":true,', body)
        return port, pid, HEAD % (path, len(plain)) + plain, HEAD % (path, len(streamed)) + streamed
    port, pid = options.port, options.pid
    if pid is None:
        _, upstream = stack.enter_context(child("--role", "stub"))
        pid, port = stack.enter_context(child("--role", "relay", "--port", str(upstream)))
    plain, streamed = (
        HEAD % (path or default, len(body)) + body for default in (b"/plain", b"/stream")
    )
    return port, pid, plain, streamed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--slack-mb", type=float, default=4.0)
    parser.add_argument("--gateway", action="store_true", help="a whole gateway")
    parser.add_argument("--pid", type=int, help="a gateway that is running already")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--path", default="")
    parser.add_argument("--body", default="x" * 500)
    parser.add_argument("--role", choices=["stub", "relay"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        uvloop.run(stub() if options.role == "stub" else relay(options.port))
        return 0
    end_cleanly()
    with contextlib.ExitStack() as stack:
        port, pid, plain, streamed = target(options, stack)
        load = Load(port, plain, streamed)
        seen = uvloop.run(soak(load, pid, options.requests, options.connections))
    ok = flat(seen, options.slack_mb) and load.errors == 0
    warm = seen[min(2, len(seen) - 1)]
    print(f"{'flat' if ok else 'NOT FLAT'}: {warm:.1f} MB warm, {seen[-1]:.1f} MB at the end")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
