"""Recording both sides of requests, when an administrator asks for it; never in logs.

One capture at a time, for one key or one model, ending after so many requests or minutes,
bounded in bytes. While none is armed a request pays one attribute read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.core.principal import Principal

MB = 1024 * 1024
MOST_REQUESTS = 1000
MOST_MINUTES = 24 * 60
MOST_MB = 256

NO_PROMPT = "no node that has the model can show the prompt that its template makes of this"

PromptOf = Callable[[str, bytes], Awaitable[str | None]]
"""From a model and a request's body to the prompt its template makes, where a node offers that."""


class CaptureOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/capture``: what to record, for at most so long.

    Args:
        key_id, model: Exactly one of them; the model by its concrete id.
        max_mb: Bytes kept of all requests and answers together (MiB).
    """

    key_id: str | None = None
    model: str | None = None
    requests: int = 10
    minutes: float = 5.0
    max_mb: int = 16


@dataclass(slots=True)
class Captured:
    """One request being recorded; a ``Watcher`` of its exchange."""

    owner: Capture
    request_id: str
    key_id: str
    model: str
    started_at: float
    request_body: bytes = b""
    chat_body: bytes = b""
    answer: list[bytes] = field(default_factory=list)
    ended_at: float | None = None
    status: int = 0
    outcome: str = "running"
    truncated: bool = False
    prompt: str | None = None

    def request(self, body: bytes, chat: bytes | None = None) -> None:
        """The client's body, and what nodes get of it."""
        self.request_body = self.owner.keep(self, body)
        own = chat is None or chat is body
        self.chat_body = self.request_body if own else self.owner.keep(self, chat or b"")

    def response(self, data: bytes) -> None:
        """Bytes as they leave for the client."""
        kept = self.owner.keep(self, data)
        if kept:
            self.answer.append(kept)

    def close(self, status: int, outcome: str) -> None:
        """It has ended."""
        self.status, self.outcome, self.ended_at = status, outcome, self.owner.now()

    def render(self) -> dict[str, object]:
        """As one JSON object; bodies as text, undecodable bytes replaced."""
        return {
            "request_id": self.request_id,
            "key_id": self.key_id,
            "model": self.model,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "status": self.status,
            "outcome": self.outcome,
            "truncated": self.truncated,
            "request": self.request_body.decode("utf-8", "replace"),
            "prompt": self.prompt,
            "prompt_missing": None if self.prompt is not None else NO_PROMPT,
            "response": b"".join(self.answer).decode("utf-8", "replace"),
        }


@dataclass(slots=True)
class Capture:
    """One armed or finished capture.

    Args:
        over: Whether its minutes are.
    """

    order: CaptureOrder
    started_at: float
    now: Callable[[], float]
    over: Callable[[], bool]
    requests: list[Captured] = field(default_factory=list)
    kept_bytes: int = 0
    stopped: bool = False

    @property
    def armed(self) -> bool:
        """Whether further requests are recorded."""
        return not (self.stopped or self.over() or len(self.requests) >= self.order.requests)

    def keep(self, captured: Captured, data: bytes) -> bytes:
        """As much of ``data`` as there is room for; the record says when it was cut."""
        room = self.order.max_mb * MB - self.kept_bytes
        if len(data) > room or captured.truncated:
            captured.truncated = True
            data = b"" if room <= 0 else data[:room]
        self.kept_bytes += len(data)
        return data

    def status(self) -> dict[str, object]:
        """As shown to administrators; no bodies."""
        return {
            "order": msgspec.to_builtins(self.order),
            "armed": self.armed,
            "started_at": self.started_at,
            "captured": len(self.requests),
            "running": sum(c.ended_at is None for c in self.requests),
            "bytes": self.kept_bytes,
        }


class Captures:
    """Holder of the one capture there is.

    Args:
        now: Epoch seconds, for people.
        prompt_of: Asks a node for a rendered prompt; None while no node offers it.
        clock: Monotonic seconds: a clock that is set back records nobody for longer.
    """

    __slots__ = ("_clock", "_now", "_prompt_of", "current")

    def __init__(
        self,
        now: Callable[[], float],
        prompt_of: PromptOf | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._now = now
        self._clock = now if clock is None else clock
        self._prompt_of = prompt_of
        self.current: Capture | None = None

    def start(self, order: CaptureOrder) -> Capture:
        """Arm a capture; what an earlier one has recorded is dropped.

        Raises:
            InvalidRequestBody: Not exactly one subject, or beyond the bounds.
        """
        if (order.key_id is None) == (order.model is None):
            raise InvalidRequestBody("Give exactly one of key_id and model.", param="key_id")
        for name, value, most in (
            ("requests", order.requests, MOST_REQUESTS),
            ("minutes", order.minutes, MOST_MINUTES),
            ("max_mb", order.max_mb, MOST_MB),
        ):
            if not 0 < value <= most:
                raise InvalidRequestBody(f"{name} must be above 0, and {most} at most.", param=name)
        self.stop()
        ends = self._clock() + order.minutes * 60
        self.current = Capture(order, self._now(), self._now, lambda: self._clock() >= ends)
        return self.current

    def stop(self) -> None:
        """Record no further requests; what there is stays until dropped."""
        if self.current is not None:
            self.current.stopped = True

    def drop(self) -> None:
        """Stop, and forget what was recorded."""
        self.stop()
        self.current = None

    def watch(self, principal: Principal, model: str, request_id: str) -> Captured | None:
        """A record to fill if this request is to be captured."""
        capture = self.current
        if capture is None:
            return None
        order = capture.order
        if order.key_id not in (None, principal.key_id) or order.model not in (None, model):
            return None
        if not capture.armed:
            return None
        captured = Captured(capture, request_id, principal.key_id, model, self._now())
        capture.requests.append(captured)
        return captured

    async def add_prompts(self) -> None:
        """Ask the nodes for the prompts of what was recorded, where they offer it."""
        if self.current is None or self._prompt_of is None:
            return
        for captured in self.current.requests:
            if captured.prompt is None and captured.request_body and not captured.truncated:
                captured.prompt = await self._prompt_of(captured.model, captured.chat_body)


def as_lines(capture: Capture) -> bytes:
    """The whole capture as JSON lines."""
    return b"".join(msgspec.json.encode(c.render()) + b"\n" for c in capture.requests)


def as_zip(capture: Capture) -> bytes:
    """The whole capture as a ZIP: per request what was asked, what was answered, and the rest."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, captured in enumerate(capture.requests):
            stem = f"{index:04d}-{captured.request_id}"
            facts = {k: v for k, v in captured.render().items() if k not in _BODIES}
            archive.writestr(f"{stem}/facts.json", msgspec.json.encode(facts))
            archive.writestr(f"{stem}/request.json", captured.request_body)
            archive.writestr(f"{stem}/response.txt", b"".join(captured.answer))
            if captured.prompt is not None:
                archive.writestr(f"{stem}/prompt.txt", captured.prompt)
    return out.getvalue()


_BODIES = frozenset(("request", "response", "prompt"))
