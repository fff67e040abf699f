"""The fake engine's HTTP server, in llama.cpp's manner down to its oddities.

One connection per request. The first chunk has ``content: null``, counts come in ``timings``,
usage comes once per choice, errors have integer codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from helexa.neuron.engines.fake.model import Faults, Piece, Reply, answer, render, tokenize
from helexa.neuron.engines.fake.slots import Slot, Slots

_MAX_BODY = 64 << 20


class FakeConfig(msgspec.Struct, frozen=True):
    """What the fake engine is told at its start.

    Args:
        context: Tokens of one slot.
        prefill_tok_s, decode_tok_s: Speeds; 0 is as fast as possible.
        chunk: Tokens of prompt between two progress events.
        start_s: Time to load.
        hold_mb: Memory (MiB) it fills and keeps, so that it weighs what a plan says.
        fault: ``exit`` (cannot load), ``oom`` (killed while loading), ``no_port`` (reports a
            port nobody listens on), ``silent`` (never reports), ``insane`` (NaN at the probe).
    """

    alias: str
    api_key: str
    context: int = 8192
    slots: int = 4
    chunk: int = 512
    prefill_tok_s: float = 0.0
    decode_tok_s: float = 0.0
    start_s: float = 0.0
    hold_mb: int = 0
    fault: str | None = None


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, kind: str, message: str, **extras: object) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "type": kind, "message": message, **extras}}


class Broken(Exception):
    """The stream ends here, after an error event."""


class FakeServer:
    """Serves until the process ends."""

    def __init__(self, config: FakeConfig) -> None:
        self.config = config
        self.slots = Slots(config.slots)
        self._held = b"\1" * (config.hold_mb << 20)
        self._ids = itertools.count(1)

    async def start(self) -> int:
        """Listen on loopback; returns the port."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=_MAX_BODY)
        return int(server.sockets[0].getsockname()[1])

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, path, key, body = await _read_request(reader)
            work = asyncio.create_task(self._answer(writer, method, path, key, body))
            gone = asyncio.create_task(reader.read(1))
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            for task in (work, gone):
                task.cancel()
            await asyncio.wait((work, gone))
        except (EOFError, ValueError, OSError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, path: str, key: str, raw: bytes
    ) -> None:
        try:
            if key != f"Bearer {self.config.api_key}":
                raise Refusal(401, "authentication_error", "Invalid API Key")
            try:
                body = json.loads(raw or b"{}")
            except ValueError as error:
                raise Refusal(400, "invalid_request_error", str(error)) from None
            if path in ("/v1/chat/completions", "/v1/completions") and method == "POST":
                await self._stream(writer, path, body)
            else:
                _plain(writer, 200, self._management(path, body))
        except Refusal as refusal:
            _plain(writer, refusal.status, refusal.body)
        except Broken:
            pass
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    def _management(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/props":
            return {"total_slots": len(self.slots.all)}
        if path == "/slots":
            return [
                {"id": s.index, "is_processing": s.busy, "n_prompt_tokens": len(s.tokens)}
                for s in self.slots.all
            ]
        if path == "/v1/chat/completions/input_tokens":
            return {"input_tokens": len(tokenize(render(body)))}
        if path == "/apply-template":
            return {"prompt": render(body)}
        if path == "/tokenize":
            return {"tokens": list(range(len(tokenize(str(body["content"])))))}
        if path == "/completion":
            value = None if self.config.fault == "insane" else -0.5
            return {"content": "x", "completion_probabilities": [{"logprob": value}]}
        if path == "/v1/embeddings":
            return self._embeddings(body)
        raise Refusal(404, "not_found_error", "File Not Found")

    def _embeddings(self, body: dict[str, Any]) -> Any:
        given = body.get("input")
        inputs = given if isinstance(given, list) else [given]
        counts = [len(tokenize(str(item))) for item in inputs]
        rows = [
            {"object": "embedding", "index": index, "embedding": [float(count), 0.0, 1.0]}
            for index, count in enumerate(counts)
        ]
        usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return {"object": "list", "model": "x", "data": rows, "usage": usage}

    async def _stream(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        faults = msgspec.convert(body.get("fake") or {}, Faults)
        prompt = tokenize(render(body))
        limit = self.config.context
        if len(prompt) >= limit:
            raise Refusal(
                400,
                "exceed_context_size_error",
                f"request ({len(prompt)} tokens) exceeds the available context size",
                n_prompt_tokens=len(prompt),
                n_ctx=limit,
            )
        slot = await self.slots.take(prompt)
        try:
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            run = _Run(self.config, writer, slot, next(self._ids), chat="chat" in path)
            await run.prefill(prompt, faults)
            room = min(limit - len(prompt), int(body.get("max_tokens", limit)))
            for index in range(int(body.get("n", 1))):
                await run.decode(answer(body, faults), index, room, faults)
            writer.write(b"data: [DONE]\n\n")
        finally:
            self.slots.give_back(slot)


class _Run:
    """One request in its slot."""

    def __init__(
        self, config: FakeConfig, writer: asyncio.StreamWriter, slot: Slot, number: int, chat: bool
    ) -> None:
        self._config = config
        self._writer = writer
        self._slot = slot
        self._chat = chat
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._common = {"id": f"fake-{number}", "object": kind, "created": 0, "model": "/x.gguf"}
        self._prompt = 0
        self._cached = 0

    def _send(self, **members: Any) -> None:
        chunk = msgspec.json.encode({**members, **self._common})
        self._writer.write(b"data: " + chunk + b"\n\n")

    def _timings(self, predicted: int) -> dict[str, Any]:
        done = {"prompt_n": self._prompt - self._cached, "prompt_ms": 1.0}
        return {"cache_n": self._cached, **done, "predicted_n": predicted, "predicted_ms": 1.0}

    async def prefill(self, prompt: list[str], faults: Faults) -> None:
        """Work through the prompt chunk by chunk, saying how far it is."""
        self._cached = self._slot.shared(prompt)
        self._prompt = len(prompt)
        self._slot.tokens = prompt[: self._cached]
        done = self._cached
        while True:
            progress = {"total": len(prompt), "cache": self._cached, "processed": done}
            self._send(
                choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}]
                if self._chat
                else [{"index": 0, "text": ""}],
                prompt_progress=progress,
            )
            await self._writer.drain()
            if done >= len(prompt):
                return
            step = min(self._config.chunk, len(prompt) - done)
            await _pause(step, self._config.prefill_tok_s)
            await asyncio.sleep(faults.prefill_s)
            done += step
            self._slot.tokens = prompt[:done]

    async def decode(self, reply: Reply, index: int, room: int, faults: Faults) -> None:
        """Say the reply, token by token, then why it ended and what it cost."""
        if self._chat:
            self._choice(index, {"role": "assistant", "content": None})
        pieces = reply.pieces[:room]
        for number, piece in enumerate(pieces):
            _happen(faults, number, self._writer, self._send)
            await _pause(1, self._config.decode_tok_s)
            first_call = piece.kind == "tool_calls" and reply.pieces.index(piece) == number
            if first_call and (number == 0 or reply.pieces[number - 1].kind != "tool_calls"):
                self._choice(index, _call_head(reply.tool))
            self._piece(index, piece, number + 1)
            self._slot.tokens.append(piece.text)
            await self._writer.drain()
        _happen(faults, len(pieces), self._writer, self._send)
        cut = len(pieces) < len(reply.pieces)
        finish = "length" if cut else "tool_calls" if reply.tool else "stop"
        self._choice(index, {}, finish=finish)
        # An end-of-answer token that brings no text is counted like any other.
        total = len(pieces) + (0 if cut else 1)
        usage = {
            "completion_tokens": total,
            "prompt_tokens": self._prompt,
            "total_tokens": self._prompt + total,
            "prompt_tokens_details": {"cached_tokens": self._cached},
        }
        self._send(choices=[], usage=usage, timings=self._timings(total))

    def _piece(self, index: int, piece: Piece, predicted: int) -> None:
        delta: dict[str, Any] = {piece.kind: piece.text}
        if piece.kind == "tool_calls":
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece.text}}]}
        self._choice(index, delta, predicted=predicted)

    def _choice(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        predicted: int | None = None,
    ) -> None:
        choice: dict[str, Any] = {"finish_reason": finish, "index": index}
        choice |= {"delta": delta} if self._chat else {"text": delta.get("content", "")}
        more = {} if predicted is None else {"timings": self._timings(predicted)}
        self._send(choices=[choice], **more)


def _call_head(name: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": function}]}


def _happen(
    faults: Faults, number: int, writer: asyncio.StreamWriter, send: Callable[..., None]
) -> None:
    """What was ordered to go wrong before output token ``number``."""
    if number == faults.crash_after:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == faults.oom_after:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == faults.hang_after:
        time.sleep(3600)  # the whole process: nothing is answered any more
    if number == faults.garbage_after:
        writer.write(b"data: \xff\xfe{not json\n\n")
    if number == faults.error_after:
        send(error={"code": 500, "message": "Compute error.", "type": "server_error"})
        raise Broken
    if number == faults.drop_after:
        writer.transport.abort()


async def _pause(tokens: int, rate: float) -> None:
    await asyncio.sleep(tokens / rate if rate else 0)


def _plain(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
    writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + raw)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, str, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return method, path, fields.get("authorization", ""), body
