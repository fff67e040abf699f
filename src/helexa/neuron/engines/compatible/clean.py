"""A client's request on its way into an OpenAI-compatible engine, paired with its cleaner."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from helexa.core.errors import UnsupportedOperation
from helexa.neuron.engines import pieces, vectors
from helexa.neuron.engines.base import UNCOUNTED, EngineRequest, Served
from helexa.neuron.engines.compatible.chat import ChatDialect
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import MakeReader
from helexa.neuron.engines.compatible.request import prepare_chat, prepare_text
from helexa.neuron.engines.compatible.splice import Splicer
from helexa.neuron.engines.compatible.stream import Dialect, StreamCleaner, guess_tokens
from helexa.neuron.engines.compatible.tally import Tally
from helexa.neuron.engines.compatible.text import TextDialect
from helexa.neuron.engines.images import any_image
from helexa.neuron.engines.prompts import requests_of, take_prompts
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json, decode

Shape = Callable[[Json, Served], MakeReader | None]
"""An engine's last word on a prepared chat request, in place; and what reads its answer."""


class Cleaning(msgspec.Struct, frozen=True):
    """How one engine cleans requests.

    Args:
        shape: Called with every prepared chat request.
        created: Unix seconds for the answers.
        clock: Monotonic seconds, for engines that do not say how long they took.
    """

    habits: Habits
    shape: Shape
    created: Callable[[], int]
    clock: Callable[[], float] = monotonic

    def request(
        self, route: str, raw: bytes, served: Served, request_id: str, *, thinking: bool = False
    ) -> EngineRequest:
        """Decode, check, repair and pair.

        Raises:
            RequestRefused: The request is wrong, or the model cannot do it.
        """
        body = decode(raw)
        name = self.habits.model
        body["model"] = served.model_id if name is None else name(served)
        if route == "chat":
            return self._chat(body, served, request_id, thinking)
        if route == "completions":
            return self._text(body, served, request_id)
        return self._vectors(route, body, served)

    def _chat(self, body: Json, served: Served, request_id: str, thinking: bool) -> EngineRequest:
        _must(served, "chat")
        stream, choices = bool(body.get("stream", False)), body.get("n", 1)
        single = body.get("parallel_tool_calls") is False
        prepare_chat(body, served, thinking, self.habits)
        reader = self.shape(body, served)
        envelope = Envelope(
            f"chatcmpl-{request_id}", self.created(), served.model_id, "chat.completion"
        )
        dialect = ChatDialect(envelope, not stream, reader, single=single)
        return self._streamed("chat", body, served, envelope, dialect, stream, choices)

    def _text(self, body: Json, served: Served, request_id: str) -> EngineRequest:
        _must(served, "complete text")
        stream, choices = bool(body.get("stream", False)), body.get("n", 1)
        prompts = take_prompts(body)
        prepare_text(body, served, self.habits)
        envelope = Envelope(
            f"cmpl-{request_id}", self.created(), served.model_id, "text_completion"
        )

        def make(body: Json, first: int, echo: str) -> EngineRequest:
            dialect = TextDialect(envelope, not stream, first, echo)
            return self._streamed("completions", body, served, envelope, dialect, stream, choices)

        return requests_of(body, prompts, envelope, make)

    def _streamed(
        self,
        route: str,
        body: Json,
        served: Served,
        envelope: Envelope,
        dialect: Dialect,
        stream: bool,
        choices: int,
    ) -> EngineRequest:
        encoded = msgspec.json.encode(body)
        guess = guess_tokens(encoded)
        tally = Tally(self.clock, guess=guess, continuous=self.habits.continuous)
        cleaner = StreamCleaner(
            envelope,
            dialect,
            served,
            tally,
            ends_with_done=self.habits.done,
            stops=() if self.habits.stops else _stops(body),
        )
        path = self._path(route, served)
        most = UNCOUNTED if any_image(body.get("messages", [])) else None
        chat = isinstance(dialect, ChatDialect) and dialect.as_it_comes
        short = chat and choices == 1 and self.habits.stops
        return EngineRequest(
            "POST",
            path,
            encoded,
            cleaner,
            stream=stream,
            choices=choices,
            most=most,
            splice=Splicer(cleaner, tally) if short else None,
        )

    def _vectors(self, route: str, body: Json, served: Served) -> EngineRequest:
        if route == "embeddings":
            prepared = vectors.prepare_embeddings(body, served)
            return pieces.embeddings(self._path(route, served), body, served, prepared)
        if route == "rerank":
            prepared = vectors.prepare_rerank(body, served)
            return pieces.rerank(self._path(route, served), body, served, prepared)
        raise UnsupportedOperation(f"{served.model_id} does not serve {route}.")

    def _path(self, route: str, served: Served) -> str:
        path = self.habits.paths.get(route)
        if path is None:
            raise UnsupportedOperation(f"{served.model_id} does not serve {route}.")
        return path


def _stops(body: Json) -> tuple[str, ...]:
    """The client's stop strings."""
    given = body.get("stop") or ()
    return (given,) if isinstance(given, str) else tuple(given)


def _must(served: Served, what: str) -> None:
    if served.plan.rerank or "text" not in served.facts.capabilities:
        raise UnsupportedOperation(f"{served.model_id} does not {what}.")
