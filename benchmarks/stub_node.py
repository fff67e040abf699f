"""A node that costs almost nothing, many times over: what stands behind the gateway in load tests.

One process plays ``--ports`` nodes, each on its own free port, straight from the event loop
(uvloop + httptools). It knows the management routes of a node (no ``/events``: it is polled) and
answers chat with canned tokens. Once it serves it prints one line: ``{"ready": true, "ports": …}``.

What it plays can be changed while it runs, so that every row of a table meets the same processes::

    POST /stub?tokens=64&gap_ms=10&prefill_ms=0&stamp=0
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import parse_qsl

import click
import httptools
import uvloop
from kit.process import raise_descriptor_limit

from helexa.relay.multiplex import SWITCHING, VERSION, Multiplex

PROMPT_TOKENS = 10
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STAMP = "@" * 21  # replaced by "@<monotonic nanoseconds, 19 digits>@"


def answer(value: object, status: str = "200 OK") -> bytes:
    """A whole JSON answer."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def framed(data: str) -> bytes:
    """One event as one chunk."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


@dataclass(frozen=True)
class Play:
    """What the nodes say: ``tokens`` events, ``gap_s`` apart, after ``prefill_s``.

    With ``stamp`` every event's content is the moment it was sent, for the delay of a relay.
    """

    model: str = "test-model"
    tokens: int = 64
    gap_s: float = 0.0
    prefill_s: float = 0.0
    stamp: bool = False
    events: tuple[bytes, ...] = field(init=False, repr=False)
    tail: bytes = field(init=False, repr=False)
    tail_with_usage: bytes = field(init=False, repr=False)
    plain: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": self.tokens,
            "total_tokens": PROMPT_TOKENS + self.tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        texts = [STAMP] if self.stamp else [f" tok{index}" for index in range(self.tokens)]
        finish, count = framed(self._chunk({}, "stop")), framed(self._chunk(None, None, usage))
        done = framed("[DONE]") + b"0\r\n\r\n"
        values = {
            "events": tuple(framed(self._chunk({"content": text}, None)) for text in texts),
            "tail": finish + done,
            "tail_with_usage": finish + count + done,
            "plain": answer(self._whole(usage)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def event(self, index: int) -> bytes:
        """The bytes of one token."""
        if not self.stamp:
            return self.events[index]
        return self.events[0].replace(STAMP.encode(), b"@%019d@" % time.monotonic_ns())

    def changed(self, query: str) -> Play:
        """The same with other settings, from a query string."""
        given = dict(parse_qsl(query))
        return replace(
            self,
            tokens=int(given.get("tokens", self.tokens)),
            gap_s=float(given.get("gap_ms", self.gap_s * 1e3)) / 1e3,
            prefill_s=float(given.get("prefill_ms", self.prefill_s * 1e3)) / 1e3,
            stamp=given.get("stamp", str(int(self.stamp))) == "1",
        )

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1700000000, "model": self.model}

    def _chunk(self, delta: object, finish: str | None, usage: object = None) -> str:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        last = {"choices": choices} if usage is None else {"choices": [], "usage": usage}
        # Without blanks, as engines and nodes write it.
        return json.dumps(self._head("chat.completion.chunk") | last, separators=(",", ":"))

    def _whole(self, usage: object) -> dict[str, Any]:
        message = {"role": "assistant", "content": " tok" * self.tokens}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self._head("chat.completion") | {"choices": [choice], "usage": usage}


def management(model: str, *, multiplex: bool) -> dict[str, bytes]:
    """The fixed answers of a node's management routes."""
    load = {"in_flight": 0, "queue_depth": 0, "max_in_flight": 4096, "max_queue_depth": 4096}
    entry = {
        "id": model,
        "harness": "stub",
        "status": "loaded",
        "devices": [],
        "vram_used_mb": 0,
        "capabilities": ["text"],
        "tool_call": True,
        "reasoning": False,
        "servable": {"ok": True},
        "limit": {"context": 262144, "input": 253952, "output": 8192},
    }
    activation = {"state": "ready", "pending": [], "completed": [model], "failed": []}
    return {
        "/health": answer(
            {
                "uptime_secs": 1,
                "devices": [],
                "activation": activation,
                "models": [{"id": model} | load],
            }
        ),
        "/models": answer([entry]),
        "/discovery": answer(
            {
                "hostname": "stub",
                "os": "linux",
                "kernel": "stub",
                "devices": [],
                "harnesses": ["stub"],
                "max_prompt_tokens": 262144,
                "multiplex": VERSION if multiplex else 0,
            }
        ),
        "/version": answer(
            {"package_version": "0", "git_sha": "stub", "git_dirty": False, "engines": {}}
        ),
        "/v1/models": answer(
            {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "stub"}]}
        ),
        "/requests": answer([]),
        "/requests/grants": answer({}),
        "/requests/ack": answer({}),
        # What an SGLang router asks its workers.
        "/server_info": answer({"model_path": model, "served_model_name": model}),
        "/model_info": answer({"model_path": model, "served_model_name": model}),
    }


class Stage:
    """What all nodes of the process share."""

    def __init__(self, play: Play, *, multiplex: bool) -> None:
        self.play = play
        self.routes = management(play.model, multiplex=multiplex)
        missing = {"message": "not here", "type": "invalid_request_error", "code": "not_found"}
        self.missing = answer({"error": missing | {"param": None}}, "404 Not Found")


class Node(asyncio.Protocol):
    """One connection to one node."""

    def __init__(self, stage: Stage, port: int) -> None:
        self._stage = stage
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._play = stage.play
        self._tail = b""
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._carry_many()

    def _carry_many(self) -> None:
        """From now on the connection is many; each of them is one of these again."""
        transport, self._transport = cast("asyncio.Transport", self._transport), None
        transport.write(SWITCHING)
        many = Multiplex(self._loop, lambda: Node(self._stage, self._port))
        transport.set_protocol(many)
        many.connection_made(transport)

    def on_message_begin(self) -> None:
        """A request begins (called by the parser, like the three below)."""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        path, _, query = self._url.decode().partition("?")
        if path.endswith("/chat/completions"):
            self._chat(b"".join(self._body))
        elif path == "/stub":
            self._stage.play = self._stage.play.changed(query)
            self._write(answer({}))
        elif path.endswith("/endpoint"):
            self._write(answer({"url": f"http://127.0.0.1:{self._port}"}))
        else:
            self._write(self._stage.routes.get(path, self._stage.missing))

    def _chat(self, body: bytes) -> None:
        play = self._play = self._stage.play
        if b'"stream":true' in body or b'"stream": true' in body:
            self._tail = play.tail_with_usage if b'"include_usage"' in body else play.tail
            self._after(play.prefill_s, self._begin)
        else:
            self._after(play.prefill_s + play.gap_s * play.tokens, self._say)

    def _say(self) -> None:
        self._write(self._play.plain)

    def _begin(self) -> None:
        self._sent = 0
        self._write(STREAM_HEAD)
        self._step()

    def _step(self) -> None:
        """One event per turn of the loop, so that each travels by itself."""
        if self._transport is None:
            return
        if self._sent == self._play.tokens:
            self._transport.write(self._tail)
            return
        self._transport.write(self._play.event(self._sent))
        self._sent += 1
        if self._play.gap_s:
            self._loop.call_later(self._play.gap_s, self._step)
        else:
            self._loop.call_soon(self._step)

    def _after(self, seconds: float, then: Any) -> None:
        if seconds:
            self._loop.call_later(seconds, then)
        else:
            then()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(stage: Stage, ports: int) -> None:
    """Play ``ports`` nodes until killed."""
    loop = asyncio.get_running_loop()
    found: list[int] = []
    for index in range(ports):

        def node(index: int = index) -> Node:
            return Node(stage, found[index])  # the port is known only once it listens

        server = await loop.create_server(node, "127.0.0.1", 0, backlog=4096)
        found.append(server.sockets[0].getsockname()[1])
    print(json.dumps({"ready": True, "ports": found}), flush=True)
    await asyncio.Event().wait()


@click.command(help=__doc__)
@click.option("--ports", default=8, show_default=True, help="Nodes to play.")
@click.option("--model", default="test-model", show_default=True)
@click.option("--tokens", default=64, show_default=True, help="Events per streamed answer.")
@click.option("--gap-ms", default=0.0, show_default=True, help="Between events.")
@click.option("--prefill-ms", default=0.0, show_default=True, help="Before the first event.")
@click.option("--stamp", is_flag=True, help="Each event carries the moment it was sent.")
@click.option(
    "--multiplex/--no-multiplex", default=True, help="Offer one connection for many requests."
)
def main(
    ports: int,
    model: str,
    tokens: int,
    gap_ms: float,
    prefill_ms: float,
    *,
    stamp: bool,
    multiplex: bool,
) -> None:
    raise_descriptor_limit()
    play = Play(model, tokens, gap_ms / 1e3, prefill_ms / 1e3, stamp)
    uvloop.run(serve(Stage(play, multiplex=multiplex), ports))


if __name__ == "__main__":
    main()
