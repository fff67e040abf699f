"""A client's request on its way into llama.cpp, paired with the cleaner of its answer."""

from __future__ import annotations

import msgspec

from helexa.core.errors import UnsupportedOperation
from helexa.neuron.engines import pieces, vectors
from helexa.neuron.engines.base import UNCOUNTED, EngineRequest, Served
from helexa.neuron.engines.images import any_image
from helexa.neuron.engines.llamacpp import chat, text
from helexa.neuron.engines.llamacpp.scores import probable
from helexa.neuron.engines.llamacpp.splice import Splicer
from helexa.neuron.engines.llamacpp.stream import StreamCleaner
from helexa.neuron.engines.prompts import requests_of, take_prompts
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json, decode

_decode_plain = msgspec.json.Decoder(Json).decode
_encode = msgspec.json.Encoder().encode


def engine_request(
    route: str,
    raw: bytes,
    served: Served,
    request_id: str,
    *,
    created: int,
    thinking: bool = False,
    grammars: bool = True,
    plain: bool = False,
) -> EngineRequest:
    """Decode, check, repair and pair.

    Args:
        route: ``chat``, ``completions``, ``embeddings`` or ``rerank``.
        created: Unix seconds for the answer.
        thinking: Asked for by a header or the catalogue.
        grammars: The engine takes grammars of ours.
        plain: Of a chat, that ``plain_chat`` has found it to be so.

    Raises:
        RequestRefused: The request is wrong, or the model cannot do it.
    """
    body = _decode_plain(raw) if plain else decode(raw)
    body["model"] = served.model_id
    if route == "chat":
        return _chat(body, served, request_id, created, thinking, grammars=grammars, plain=plain)
    if route == "completions":
        return _text(body, served, request_id, created)
    if route == "embeddings":
        prepared = vectors.prepare_embeddings(body, served)
        return pieces.embeddings("/v1/embeddings", body, served, prepared)
    if route == "rerank":
        prepared = probable(vectors.prepare_rerank(body, served), served.facts.architecture)
        return pieces.rerank("/v1/rerank", body, served, prepared)
    raise UnsupportedOperation(f"{served.model_id} does not serve {route}.")


def _chat(
    body: Json,
    served: Served,
    request_id: str,
    created: int,
    thinking: bool,
    *,
    grammars: bool,
    plain: bool,
) -> EngineRequest:
    _check_answers(served)
    stream = bool(body.get("stream", False))
    choices = body.get("n", 1)
    bare = not plain and chat.bare_logprobs(body)
    single = body.get("parallel_tool_calls") is False
    heads = chat.prepare(body, served, thinking, grammars=grammars, plain=plain)
    envelope = Envelope(f"chatcmpl-{request_id}", created, served.model_id, "chat.completion")
    dialect = chat.ChatDialect(envelope, keep=not stream, heads=heads, bare=bare, single=single)
    cleaner = StreamCleaner(envelope, dialect, served)
    return EngineRequest(  # by position: with names it takes several times as long
        "POST",
        "/v1/chat/completions",
        _encode(body),
        cleaner,
        (),
        stream,
        True,
        choices,
        UNCOUNTED if not plain and any_image(body["messages"]) else None,
        None,
        Splicer(cleaner) if stream and heads is None and choices == 1 else None,
    )


def _check_answers(served: Served) -> None:
    if served.plan.rerank or "text" not in served.facts.capabilities:
        raise UnsupportedOperation(f"{served.model_id} makes no text; it cannot chat.")


def _text(body: Json, served: Served, request_id: str, created: int) -> EngineRequest:
    _check_answers(served)
    stream = bool(body.get("stream", False))
    choices = body.get("n", 1)
    bare = body.get("logprobs") == 0
    prompts = take_prompts(body)
    text.prepare(body, served)
    envelope = Envelope(f"cmpl-{request_id}", created, served.model_id, "text_completion")

    def make(body: Json, first: int, echo: str) -> EngineRequest:
        dialect = text.TextDialect(envelope, not stream, bare=bare, first=first, echo=echo)
        cleaner = StreamCleaner(envelope, dialect, served)
        encoded = msgspec.json.encode(body)
        return EngineRequest(
            "POST", "/v1/completions", encoded, cleaner, stream=stream, choices=choices
        )

    return requests_of(body, prompts, envelope, make)
