"""Clients as they are: some leave in the middle, some read slowly, and all ask again when they are
told that it was not their fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

LEAVE, SLOW = 0.15, 0.05
TRIES = 8
ANSWER_S = 400.0
"""What an answer may take: a busy machine is no fault of the gateway's."""

AGAIN = frozenset(("refused 502", "refused 503", "error event", "lost with the gateway"))
REFUSALS = frozenset((429, 502, 503, 504))


@dataclass
class Clients:
    """What they ask, and what became of it.

    Args:
        port: The gateway's.
        killed: When the gateway was killed, and when it was back (``time.monotonic``): what
            breaks around then is lost with it, and otherwise a fault.

    Attributes:
        ends: How answers ended, and how many.
        faults: Ends that none may have.
        told: By request id, the tokens that whole answers say they cost.
    """

    model: str
    port: int
    rng: random.Random
    killed: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)

    async def ask(self, key: str) -> None:
        """One of them: asks again, as the SDKs do, when it was not its own fault."""
        await asyncio.sleep(self.rng.random() * 3)
        for _ in range(TRIES):
            end = await self._ask(key)
            self.ends[end] += 1
            if end not in AGAIN:
                return
            await asyncio.sleep(0.5 + self.rng.random())

    async def _ask(self, key: str) -> str:
        """One request, and what became of it."""
        rng = self.rng
        stream, tokens = rng.random() < 0.7, rng.choice((1, 5, 40, 200))
        leave = rng.random() < LEAVE
        slow = stream and rng.random() < SLOW
        payload = _body(self.model, rng.randrange(1000), tokens, stream=stream)
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                status, head, raw = await _exchange(self.port, key, payload, leave=leave, slow=slow)
        except TimeoutError:
            self.faults.append(f"no end of an answer in {ANSWER_S:.0f} s")
            return "silent"
        end = _judge(status, raw, stream=stream, leave=leave)
        if end == "broken" and any(at >= began - 1 for at in self.killed):
            return "lost with the gateway"
        if end == "broken":
            self.faults.append(f"{status} {bytes(raw[-200:])!r}")
        usage = _usage(raw) if end.startswith("whole") else None
        if usage is not None:
            self.told[head.partition("x-request-id: ")[2].partition("\r\n")[0]] = usage
        return end


def _body(model: str, number: int, tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {
        "model": model, "stream": stream, "max_tokens": tokens, "ignore_eos": True,
        "messages": [{"role": "user", "content": f"Count from {number}."}],
    }  # fmt: skip
    if stream:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


async def _exchange(
    port: int, key: str, payload: bytes, *, leave: bool, slow: bool
) -> tuple[int, str, bytearray]:
    """Status, head and body as far as they came; a gateway that is down is waited for."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"connection: close\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    raw = bytearray()
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        await asyncio.sleep(0.1)
    status, text = 0, ""
    try:
        writer.write(head.encode() + payload)
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(text[9:12])
        while data := await reader.read(256 if slow else 65536):
            raw += data
            if leave:
                break
            if slow:
                await asyncio.sleep(0.01)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()
    return status, text, raw


def _judge(status: int, raw: bytearray, *, stream: bool, leave: bool) -> str:
    """One of: whole, whole and cut by its budget, refused, error event, left, broken."""
    if leave and status == 200:
        return "left"
    if status in REFUSALS and b'"code"' in raw:
        return f"refused {status}"
    whole = b"data: [DONE]" in raw if stream else b'"usage"' in raw
    if status == 200 and whole:
        return "whole, cut by budget" if b'"finish":"budget"' in raw.replace(b" ", b"") else "whole"
    if status == 200 and stream and b'"error"' in raw:
        return "error event"
    return "left" if leave else "broken"


def _usage(raw: bytearray) -> int | None:
    """Tokens that the answer says it cost."""
    at = raw.rfind(b'"usage":{')
    if at < 0:
        return None
    tail = bytes(raw[at + 8 :])
    found, _ = json.JSONDecoder().raw_decode(tail.decode(errors="replace"))
    return int(found["prompt_tokens"]) + int(found["completion_tokens"])
