"""Runs and servers made to measure, shared by the tests of this room."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from helexa.bench.row import ModelFacts, Provenance, Result, Run

Write = Callable[[bytes], Awaitable[None]]
Play = Callable[[dict[str, Any], Write], Awaitable[None]]


def run(
    at: float = 1.0,
    *,
    target: str = "beast",
    build: str = "1.0+aaa",
    model: str = "m",
    scenario: str = "chat:128",
    first: float | None = 100.0,
    rate: float | None = 50.0,
    **result: Any,
) -> Run:
    """A stored run; what is not said is plausible."""
    source = Provenance(
        target, "neuron", "http://10.0.0.1:13131", build, host="secret-host", gpus="2× RTX 5090"
    )
    measured = {"first_token_ms": first, "decode_rate": rate, "output_cap": 256, "requests": 1}
    facts = ModelFacts(model, engine="llamacpp 1", quant="Q4_K_M")
    return Run(at, scenario, source, facts, Result(**(measured | result)))


def chunk(delta: dict[str, Any], **members: Any) -> bytes:
    """One chat event."""
    choice = {"index": 0, "delta": delta, "finish_reason": members.pop("finish_reason", None)}
    body = {"object": "chat.completion.chunk", "choices": [choice], **members}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def usage(prompt: int, completion: int, **more: Any) -> bytes:
    """The usage event."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": counts, **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def serving(play: Play) -> AsyncIterator[str]:
    """A server that hands every request's body to ``play``; yields its base URL."""

    handling: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handling.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = json.loads(await reader.readexactly(length)) if length else {}
            body["_path"] = head.split(b" ")[1].decode()

            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            await play(body, write)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            handling.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(handling):
            task.cancel()
        if handling:
            await asyncio.wait(list(handling), timeout=5)
        await asyncio.sleep(0)


@contextmanager
def serving_in_thread(play: Play) -> Iterator[str]:
    """The same for tests whose client is another process."""
    loop = asyncio.new_event_loop()
    ready: list[str] = []
    up, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with serving(play) as url:
            ready.append(url)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert up.wait(30)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def json_answer(value: Any, status: int = 200) -> bytes:
    """A whole plain answer."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body
