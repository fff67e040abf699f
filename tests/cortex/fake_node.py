"""A node for tests: a real HTTP server on loopback that fails on command.

Not a benchmark: one task per connection, one request per connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any


def model(name: str, status: str = "loaded", **more: Any) -> dict[str, Any]:
    """An entry of ``/models``."""
    return {"id": name, "harness": "llamacpp", "status": status, "devices": [0], **more}


class Turn:
    """One inference request at the node, answered as a test likes.

    Attributes:
        headers: By lower-case name.
        raw: The body's bytes.
    """

    def __init__(
        self,
        node: FakeNode,
        path: str,
        headers: dict[str, str],
        raw: bytes,
        ends: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.node = node
        self.path = path
        self.headers = headers
        self.raw = raw
        self._reader, self._writer = ends

    @property
    def body(self) -> Any:
        """The decoded body."""
        return json.loads(self.raw)

    def plain(self, body: Any, status: int = 200, lines: str = "") -> None:
        """A whole answer, with further header lines."""
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n{lines}connection: close"
        self._writer.write(head.encode() + b"\r\n\r\n" + data)

    def open(self, lines: str = "") -> None:
        """The head of a streamed answer."""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{lines}"
        self._writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())

    def send(self, events: bytes) -> None:
        """One chunk of it."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(events), events))

    def close(self) -> None:
        """Its orderly end."""
        self._writer.write(b"0\r\n\r\n")

    def stream(self, *events: bytes, lines: str = "") -> None:
        """A whole streamed answer, an event per chunk."""
        self.open(lines)
        for event in events:
            self.send(event)
        self.close()

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()

    def record(self, state: str, prompt: int = 0, output: int = 0, **more: Any) -> dict[str, Any]:
        """The final record of this request."""
        gateway, _, epoch = self.headers["x-helexa-gateway"].rpartition("/")
        return {
            "request_id": self.headers["x-request-id"],
            "attempt": int(self.headers["x-helexa-attempt"]),
            "gateway": gateway,
            "epoch": int(epoch),
            "model": self.body["model"],
            "state": state,
            "prompt": prompt,
            "output": output,
            **more,
        }

    def ended(self, state: str, prompt: int = 0, output: int = 0, **more: Any) -> None:
        """Say on the event stream what it has cost, and keep that until it is acknowledged."""
        record = self.record(state, prompt, output, **more)
        self.node.records.append(record)
        self.node.push("request_end", record=record)

    async def left(self) -> None:
        """Wait until the gateway has dropped the request."""
        async with asyncio.timeout(30):
            await self._reader.read()


Chat = Callable[[Turn], Awaitable[None]]


class FakeNode:
    """Knobs: ``fail`` answers that status everywhere, ``hang`` never answers, ``with_events``;
    ``chat`` answers inference."""

    def __init__(self) -> None:
        self.port = 0
        self.models: dict[str, dict[str, Any]] = {}
        self.loads: dict[str, dict[str, Any]] = {}
        self.devices: list[dict[str, Any]] = [
            {"index": 0, "name": "gpu", "vram_total_mb": 24_000, "kind": "cuda"}
        ]
        self.free_mb = 20_000
        self.harnesses = ["llamacpp"]
        self.fail: int | None = None
        self.draining: bool | None = None
        self.hang = False
        self.with_events = True
        self.refuse_loads: list[tuple[int, dict[str, Any]]] = []
        self.finish_loads = True
        self.plan: dict[str, Any] | None = None
        self.epoch = 7
        self.seq = 0
        self.log: list[tuple[str, str, dict[str, str], Any]] = []
        self.chat: Chat | None = None
        self.turns: list[Turn] = []
        self.records: list[dict[str, Any]] = []
        self._listened = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._readers: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Base URL; the port stays the same over ``stop`` and ``start``."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen (again)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and cut those there are, as a killed process does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Break every open connection."""
        self._readers.clear()
        self._listened.clear()
        for writer in list(self._writers):
            writer.transport.abort()

    async def listened(self) -> None:
        """Wait until somebody follows the event stream."""
        async with asyncio.timeout(30):
            await self._listened.wait()

    def calls(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(logged == path for _, logged, _, _ in self.log)

    def put(self, entry: dict[str, Any]) -> None:
        """Change a model and say so."""
        self.models[entry["id"]] = entry
        self.push("model", model=entry)

    def push(self, kind: str, **body: Any) -> None:
        """Send an event to every listener."""
        self.seq += 1
        for writer in self._readers:
            writer.write(self._event(kind, body))

    def _event(self, kind: str, body: dict[str, Any]) -> bytes:
        data = json.dumps({"seq": self.seq, "epoch": self.epoch, "type": kind, **body})
        return f"id: {self.epoch}-{self.seq}\nevent: {kind}\ndata: {data}\n\n".encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            method, path, headers, raw = await self._read(reader)
            if path.startswith("/v1/") and self.chat is not None:
                turn = Turn(self, path, headers, raw, (reader, writer))
                self.turns.append(turn)
                await self.chat(turn)
                await writer.drain()
                return
            body = json.loads(raw) if raw else None
            self.log.append((method, path.partition("?")[0], headers, body))
            if self.hang:
                await reader.read()
            elif self.fail is not None:
                self._answer(writer, self.fail, {"error": {"message": "told to fail"}})
            elif path == "/events" and self.with_events:
                await self._listen(reader, writer, headers)
            else:
                self._answer(writer, *self._route(method, path.partition("?")[0], body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        except RuntimeError as error:
            if "the handler is closed" not in str(error):  # uvloop's word for a late write
                raise
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        return method, path, headers, raw

    async def _listen(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        if headers.get("last-event-id") != f"{self.epoch}-{self.seq}":
            snapshot = {"health": self._health(), "models": list(self.models.values())}
            writer.write(self._event("snapshot", snapshot))
        self._readers.add(writer)
        self._listened.set()
        try:
            await reader.read()
        finally:
            self._readers.discard(writer)
            if not self._readers:
                self._listened.clear()

    def _health(self) -> dict[str, Any]:
        used = 24_000 - self.free_mb
        readings = [{"index": 0, "vram_used_mb": used, "vram_free_mb": self.free_mb}]
        return {
            "uptime_secs": 5,
            "devices": readings,
            "models": [{"id": name, **load} for name, load in self.loads.items()],
            **({} if self.draining is None else {"draining": self.draining}),
        }

    def _route(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", "/health":
                return 200, self._health()
            case "GET", "/models":
                return 200, list(self.models.values())
            case "GET", "/discovery":
                return 200, {"devices": self.devices, "harnesses": self.harnesses}
            case "GET", "/version":
                return 200, {"package_version": "0.0.1", "engines": {"llamacpp": "1"}}
            case "POST", "/models/plan" if self.plan is not None:
                return 200, self.plan
            case "POST", "/models/load":
                return self._load(body)
            case "POST", "/models/unload":
                self.models.pop(body["model_id"], None)
                return 200, {}
            case "GET", "/requests":
                return 200, self.records
            case "POST", "/requests/ack":
                acked = {(ack["request_id"], ack["attempt"]) for ack in body}
                kept = [r for r in self.records if (r["request_id"], r["attempt"]) not in acked]
                self.records = kept
                return 200, {"acknowledged": len(acked)}
            case "POST", "/requests/grants":
                return 200, {"found": len(body)}
            case "POST", "/drain":
                self.push("drain", draining=True)
                return 200, {}
        return 404, {"error": {"message": "no such path", "code": "not_found"}}

    def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.refuse_loads:
            return self.refuse_loads.pop(0)
        name = body["model_id"]
        self.put(model(name, "loading", progress=0.5, eta_s=3.0))
        if self.finish_loads:
            asyncio.get_running_loop().call_soon(self.put, model(name))
        return 202, {"status": "loading"}

    def _answer(self, writer: asyncio.StreamWriter, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + data)


@asynccontextmanager
async def fake_node(*models: dict[str, Any]) -> AsyncIterator[FakeNode]:
    """A running node with these models."""
    node = FakeNode()
    node.models = {entry["id"]: entry for entry in models}
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
