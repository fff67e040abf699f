"""An endpoint over HTTP, in whichever dialect it speaks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from helexa.acp.providers.base import Dialect, Model, Note
from helexa.acp.providers.chat import ChatDialect
from helexa.acp.providers.messages import MessagesDialect
from helexa.acp.providers.responses import ResponsesDialect
from helexa.acp.providers.sse import Sse
from helexa.acp.settings import Endpoint
from helexa.core.chat import ChatRequest
from helexa.core.errors import ServiceUnavailable
from helexa.core.events import Event
from helexa.relay.client import request_json, stream
from helexa.wire.bodies import UNREADABLE
from helexa.wire.errors import from_wire

_MODELS_TIMEOUT_S = 5.0
_SILENCE_S = 600.0
_DIALECTS: dict[str, type[ChatDialect | MessagesDialect | ResponsesDialect]] = {
    "chat": ChatDialect,
    "messages": MessagesDialect,
    "responses": ResponsesDialect,
}


class HttpProvider:
    """See ``providers.base.Provider``."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self.endpoint = endpoint
        self._base = endpoint.base_url.rstrip("/").removesuffix("/v1")
        self._dialect: Dialect = _DIALECTS[endpoint.wire]()
        self._headers = dict(self._dialect.headers)
        if key is not None:
            name = "x-api-key" if endpoint.wire == "messages" else "authorization"
            self._headers[name] = key if endpoint.wire == "messages" else f"Bearer {key}"

    async def models(self) -> list[Model]:
        """The live list, in the shape that helexa's gateway gives it, or any server's."""
        answer = await request_json(
            "GET", f"{self._base}/v1/models", headers=self._headers, timeout=_MODELS_TIMEOUT_S
        )
        if answer.status != 200:
            raise from_wire(answer.status, answer.body)
        try:
            entries = msgspec.json.decode(answer.body)["data"]
            return [self._model(entry) for entry in entries]
        except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
            raise ServiceUnavailable(
                f"{self._base}/v1/models does not list models: {error}"
            ) from error

    async def stream(self, request: ChatRequest) -> AsyncIterator[Event | Note]:
        """One answer; a refusal before it is raised."""
        reader, comments = self._dialect.reader(), Sse()
        pieces = stream(
            self._base + self._dialect.path,
            body=self._dialect.encode(request),
            headers=self._headers,
            idle_timeout=_SILENCE_S,
        )
        status, refusal = 0, b""
        async with contextlib.aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                if isinstance(piece, int):
                    status = piece
                elif status != 200:
                    refusal += piece
                else:
                    for note in _notes(comments, piece):
                        yield note
                    for event in reader.feed(piece):
                        yield event
                    if reader.over:
                        return
        if status != 200:
            raise from_wire(status, refusal)
        for event in reader.lost():
            yield event

    def _model(self, entry: dict[str, Any]) -> Model:
        limit = entry.get("limit") or {}
        context = limit.get("context") or entry.get("max_model_len") or entry.get("context_length")
        can = entry.get("capabilities")
        return Model(
            id=entry["id"],
            context=self.endpoint.context_window or context or entry.get("max_input_tokens"),
            output=self.endpoint.max_tokens or limit.get("output") or entry.get("max_tokens"),
            warm=entry.get("loaded"),
            tools=entry.get("tool_call"),
            vision="vision" in can if isinstance(can, list) else None,
            reasoning=entry.get("reasoning"),
            cost=entry.get("cost"),
        )


def _notes(comments: Sse, piece: bytes) -> list[Note]:
    """What helexa's gateway says in comments while a request waits."""
    if b": helexa" not in piece:
        return []  # a gateway writes its comments whole
    comments.feed(piece)
    found, comments.comments = comments.comments, []
    notes = []
    for comment in found:
        if not comment.startswith("helexa {"):
            continue
        with contextlib.suppress(msgspec.DecodeError):
            said = msgspec.json.decode(comment.removeprefix("helexa "))
            words = _waiting(said)
            if words:
                notes.append(Note(words))
    return notes


def _waiting(said: Any) -> str:
    if not isinstance(said, dict) or not said.keys() & {"eta_s", "position", "progress"}:
        return ""
    words = ["the model is being loaded" if "progress" in said or "eta_s" in said else "waiting"]
    if said.get("progress") is not None:
        words.append(f"{said['progress'] * 100:.0f} %")
    if said.get("position") is not None:
        words.append(f"place {said['position']} in the queue")
    if said.get("eta_s") is not None:
        words.append(f"about {said['eta_s']:.0f} s")
    return ", ".join(words)
