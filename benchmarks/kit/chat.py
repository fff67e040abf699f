"""One streamed chat request on a socket, timed, with as little work as possible in between."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.process import Failed

_FIRST = (b'"content":"', b'"reasoning_content":"')


@dataclass(slots=True)
class Answer:
    """What came back. Times are of ``perf_counter``; 0 is never.

    Args:
        reads: When bytes with tokens came, and how many events of tokens had come by then.
    """

    began: float
    status: int = 0
    first: float = 0.0
    last: float = 0.0
    whole: bool = False
    head: bytes = b""
    raw: bytearray = field(default_factory=bytearray)
    reads: list[tuple[float, int]] = field(default_factory=list)

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""
        return self.first - self.began

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON of every event."""
        lines = bytes(self.raw).split(b"\n")
        datas = [line[6:] for line in lines if line.startswith(b"data: {")]
        return [json.loads(data) for data in datas]

    @property
    def end(self) -> dict[str, Any]:
        """The usage chunk: ``usage`` and ``timings``; empty when there is none."""
        at = self.raw.rfind(b"data: {", 0, max(0, self.raw.rfind(b'"usage":{')))
        if at < 0:
            return {}
        found: dict[str, Any] = json.loads(self.raw[at + 6 : self.raw.index(b"\n", at)])
        return found

    @property
    def tokens(self) -> int:
        """Completion tokens by the usage chunk."""
        return int(self.end["usage"]["completion_tokens"])

    @property
    def rate(self) -> float:
        """Tokens per second from the first token on."""
        return (self.tokens - 1) / (self.last - self.first)

    def header(self, name: str) -> str:
        """A response header; empty when it is not there."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.encode():
                return value.strip().decode()
        return ""


def body(model: str, text: str, tokens: int, **more: Any) -> bytes:
    """A streamed request for exactly ``tokens`` tokens."""
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    return json.dumps(asked | more).encode()


async def ask(
    port: int | str,
    payload: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    leave_after: int | None = None,
    within_s: float = 300.0,
) -> Answer:
    """Send one request and read its answer to the end.

    Args:
        port: Of this machine; or the path of a Unix socket.
        leave_after: Close the connection once so many bytes have come (0: at once).
    """
    if isinstance(port, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(port)  # uvloop knows no names of the abstract namespace
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=1 << 20)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{lines}connection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    answer = Answer(time.perf_counter())
    try:
        writer.write(head.encode() + payload)
        async with asyncio.timeout(within_s):
            await _read(reader, answer, leave_after)
    except (OSError, asyncio.IncompleteReadError):
        pass  # the other side broke off: ``whole`` and ``status`` say how far it came
    finally:
        answer.last = answer.last or time.perf_counter()
        writer.transport.abort()
    return answer


async def _read(reader: asyncio.StreamReader, answer: Answer, leave_after: int | None) -> None:
    if leave_after == 0:
        return
    answer.head = await reader.readuntil(b"\r\n\r\n")
    answer.status = int(answer.head[9:12])
    while data := await reader.read(65536):
        fresh = sum(data.count(mark) for mark in _FIRST)
        if fresh:
            now, told = time.perf_counter(), answer.reads[-1][1] if answer.reads else 0
            answer.first = answer.first or now
            answer.reads.append((now, told + fresh))
        answer.raw += data
        if b"data: [DONE]" in answer.raw[-len(data) - 16 :]:
            answer.last = time.perf_counter()
            answer.whole = True
            return
        if leave_after is not None and len(answer.raw) >= leave_after:
            return


def together(answers: Sequence[Answer]) -> float:
    """Tokens per second of all answers while every one of them was being written.

    Raises:
        Failed: There was no such time.
    """
    began = max(answer.first for answer in answers)
    ended = min(answer.reads[-1][0] for answer in answers)
    if ended <= began:
        raise Failed("one answer ended before another began; ask for longer ones")
    return sum(_told(answer, ended) - _told(answer, began) for answer in answers) / (ended - began)


def _told(answer: Answer, moment: float) -> int:
    return max((told for when, told in answer.reads if when <= moment), default=0)
