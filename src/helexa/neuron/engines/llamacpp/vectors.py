"""Embeddings and rerank on llama.cpp: plain answers, counted by their usage."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    UnsupportedOperation,
    UpstreamConnectionError,
)
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.request import Json, wrong


def prepare_embeddings(body: Json, served: Served) -> None:
    """Check an embeddings request; texts, token ids, and either in a list."""
    if not served.plan.embeddings:
        raise UnsupportedOperation(f"{served.model_id} is not loaded to make embeddings.")
    given = body.get("input")
    if given is None:
        raise InvalidRequestBody("The request has no `input`.", param="input")
    if not isinstance(given, (str, list)):
        raise wrong("input", "a string or a list", given)
    if not given:
        raise InvalidRequestBody("`input` is empty.", param="input")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidRequestBody(
            "`encoding_format` must be float or base64.", param="encoding_format"
        )


def prepare_rerank(body: Json, served: Served) -> None:
    """Check a rerank request: a query and documents (strings, or objects with ``text``)."""
    if not served.plan.rerank:
        raise UnsupportedOperation(f"{served.model_id} is not loaded to rerank.")
    if not isinstance(body.get("query"), str):
        raise wrong("query", "a string", body.get("query"))
    documents = body.get("documents")
    if not isinstance(documents, list) or not documents:
        raise wrong("documents", "a list with at least one document", documents)
    texts = [doc.get("text") if isinstance(doc, dict) else doc for doc in documents]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise wrong(f"documents[{index}]", "a string", text)
    body["documents"] = texts


class PlainCleaner:
    """A whole body in, the same body under the served id out."""

    def __init__(self, served: Served) -> None:
        self.meter = Meter()
        self.finish_reason: str | None = None
        self.failed: HelexaError | None = None
        self.done = False
        self._served = served
        self._body = bytearray()

    def feed(self, events: bytes) -> bytes:
        """Collect; nothing leaves before it is whole."""
        self._body += events
        return b""

    def close(self, finish: str, why: str | None) -> bytes:  # noqa: ARG002
        """There is nothing to end early."""
        self.done = True
        return b""

    def whole(self) -> bytes:
        """The answer; ``failed`` is set when it is not one."""
        try:
            answer: dict[str, Any] = msgspec.json.decode(self._body)
            usage = answer.setdefault("usage", {})
            self.meter.prompt = int(usage.get("prompt_tokens", usage.get("total_tokens", 0)))
        except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
            self.failed = UpstreamConnectionError(
                f"The engine of {self._served.model_id} sent something that is not an answer."
            )
            return b""
        self.meter.prompt_processed = self.meter.prompt
        self.meter.prompt_known = True
        answer["model"] = self._served.model_id
        self.done = True
        self.finish_reason = "stop"
        return msgspec.json.encode(answer)
