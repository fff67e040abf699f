"""Driving an engine as a node does: a cleaned request out, whole events through its cleaner."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helexa.core.errors import HelexaError
from helexa.neuron.engines.base import Address, Engine, EngineRequest, Host, Plan, Served
from helexa.neuron.engines.supervisor import (
    EngineChange,
    EngineProcess,
    EngineSpec,
    SupervisorSettings,
)
from helexa.neuron.models.facts import ModelFacts

HOST = Host((), (), 24_000, 20_000, 2)
QUICK = SupervisorSettings(start_deadline_s=20, backoff_min_s=0.02, stop_grace_s=2)


Busy = Callable[["Case"], Awaitable[int]]
"""How many requests an engine runs that does not tell its node."""
Start = Callable[..., "AbstractAsyncContextManager[Case]"]
"""Starts an engine process of the test's own; its members are wishes for the plan."""


def as_json(clean: bytes) -> list[dict[str, Any]]:
    """The chunks of a clean stream, without its terminator."""
    events = [event for event in clean.split(b"\n\n") if event]
    return [json.loads(event[6:]) for event in events if event != b"data: [DONE]"]


def text_of(chunks: list[dict[str, Any]], kind: str = "content", index: int = 0) -> str:
    """The deltas of one kind of one choice, joined."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(c["delta"].get(kind, "") for c in choices if c["index"] == index)


@dataclass
class Exchange:
    """One request at an engine; ``clean`` is what a client would have got so far."""

    request: EngineRequest
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    clean: bytes = b""
    refusal: bytes = b""
    rest: bytes = b""
    raw: list[bytes] = field(default_factory=list)

    async def begin(self) -> int:
        """Read the head of the answer, and the body if it is a refusal."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])
        self.chunked = b"chunked" in head.lower()
        if self.status != 200:
            self.refusal = await self.reader.read()
            self.drop()
        return self.status

    async def step(self) -> bool:
        """Feed what has come; False at the end of the connection."""
        piece = await self._piece()
        self.rest += piece
        if self.request.events:
            end = self.rest.rfind(b"\n\n") + 2
            whole, self.rest = (self.rest[:end], self.rest[end:]) if end > 1 else (b"", self.rest)
        else:
            whole, self.rest = self.rest, b""
        self.raw.append(whole)
        self.clean += self.request.cleaner.feed(whole)
        return bool(piece)

    async def _piece(self) -> bytes:
        if not self.chunked:
            return await self.reader.read(65536)
        line = await self.reader.readline()
        if not line.strip():
            return b""
        size = int(line, 16)
        piece = await self.reader.readexactly(size) if size else b""
        await self.reader.readline()
        return piece

    async def until(self, met: Callable[[], bool]) -> None:
        """Feed until a condition is met."""
        while not met():
            assert await self.step(), "the engine hung up"

    async def finish(self) -> bytes:
        """Feed to the end."""
        if not self.status:
            await self.begin()
        assert self.status == 200, self.refusal
        while not self.request.cleaner.done and await self.step():
            pass
        self.drop()
        return self.clean

    def drop(self) -> None:
        """Leave, as a node does when its client left."""
        self.writer.transport.abort()


@dataclass
class Case:
    """An engine process under supervision, and how requests reach it."""

    engine: Engine
    facts: ModelFacts
    plan: Plan
    process: EngineProcess
    busy: Busy | None = None
    patience_s: float = 60.0
    changes: list[EngineChange] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_change(self, change: EngineChange) -> None:
        self.changes.append(change)
        self.changed.set()

    async def reaches(self, state: str, life: int) -> None:
        """Return when the process has been in a state of a life."""
        async with asyncio.timeout(self.patience_s):
            while not any((c.state, c.life) == (state, life) for c in self.changes):
                self.changed.clear()
                await self.changed.wait()

    @property
    def address(self) -> Address:
        assert self.process.address is not None, self.process.reason
        return self.process.address

    @property
    def served(self) -> Served:
        return Served(self.facts.model_id, self.facts, self.plan, max_output=2048)

    def clean(self, route: str, body: dict[str, Any], **more: Any) -> EngineRequest:
        """The cleaned request."""
        raw = json.dumps({"model": "asked", **body}).encode()
        return self.engine.clean(route, raw, self.served, "abc", **more)

    async def send(self, body: dict[str, Any], route: str = "chat", **more: Any) -> Exchange:
        """Send a request; nothing of the answer is read yet."""
        request = self.clean(route, body, **more)
        if self.address.uds is not None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.address.uds)  # uvloop knows no names of the abstract namespace
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.address.port)
        head = (
            f"{request.method} {request.path} HTTP/1.1\r\nhost: engine\r\n"
            f"authorization: Bearer {self.address.api_key}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(request.body)}\r\n\r\n"
        )
        writer.write(head.encode() + request.body)
        return Exchange(request, reader, writer)

    async def say(self, text: str, **members: Any) -> Exchange:
        """A finished streamed exchange of one user message."""
        exchange = await self.send({**user(text), "stream": True, **members})
        await exchange.finish()
        return exchange

    def refusal(self, exchange: Exchange) -> HelexaError:
        """The engine's refusal in our words."""
        return self.engine.error(exchange.status, exchange.refusal, self.served)

    async def free(self, within_s: float = 5.0) -> None:
        """Return when no slot is busy."""
        async with asyncio.timeout(within_s):
            while await self.running():
                pass

    async def running(self) -> int:
        """How many requests the engine runs."""
        if self.busy is not None:
            return await self.busy(self)
        return (await self.engine.load(self.address)).running


def user(text: str) -> dict[str, Any]:
    """The members of a request with one user message."""
    return {"messages": [{"role": "user", "content": text}]}


@asynccontextmanager
async def running(
    engine: Engine,
    facts: ModelFacts,
    state: Path,
    wanted: Mapping[str, object],
    settings: SupervisorSettings = QUICK,
    *,
    busy: Busy | None = None,
) -> AsyncIterator[Case]:
    """An engine process, ended afterwards."""
    plan = engine.plan(facts, HOST, wanted)
    spec = EngineSpec(
        engine.name,
        facts.model_id,
        lambda: engine.launch(facts, plan, facts.model_id),
        lambda address: engine.ready(address, facts.model_id),
    )
    process = EngineProcess(
        spec,
        state,
        settings=settings,
        on_change=lambda change: case.on_change(change),  # noqa: PLW0108 - case comes after
    )
    patience_s = max(60.0, settings.start_deadline_s)
    case = Case(engine, facts, plan, process, busy, patience_s)
    try:
        await process.start()
        yield case
    finally:
        await process.stop()
