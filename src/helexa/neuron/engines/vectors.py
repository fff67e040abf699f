"""Embeddings and rerank: plain answers, counted by their usage.

What engines do not do themselves is done to their answers: fewer dimensions, the documents beside
their scores.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    UnsupportedOperation,
    UpstreamConnectionError,
)
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.prompts import check_ids
from helexa.neuron.engines.request import Json, wrong

Amend = Callable[[dict[str, Any]], None]
"""Changes a decoded answer in place."""

EXTRA_TOKENS = 8
"""More than a tokenizer adds around one input, or one pair."""


MOST_INPUTS = 2048
"""Of one embeddings request, as OpenAI has it: their vectors are all in memory at once."""
MOST_DOCUMENTS = 10_000


class Prepared(NamedTuple):
    """A request that was checked.

    Args:
        amend: What is left to do to the answer.
        sizes: Tokens that each input cannot exceed.
    """

    amend: Amend | None
    sizes: list[int]


def prepare_embeddings(body: Json, served: Served) -> Prepared:
    """Check an embeddings request; texts, token ids, and either in a list.

    Raises:
        RequestRefused: With the path of what is wrong, for example ``input[1]``.
    """
    if not served.plan.embeddings:
        raise UnsupportedOperation(f"{served.model_id} is not loaded to make embeddings.")
    given = body.get("input")
    if given is None:
        raise InvalidRequestBody("The request has no `input`.", param="input")
    if not isinstance(given, (str, list)):
        raise wrong("input", "a string or a list", given)
    if not given:
        raise InvalidRequestBody("`input` is empty.", param="input")
    if isinstance(given, list):
        _check_batch(given)
    if isinstance(given, list) and type(given[0]) is int:
        check_ids(given, "input")
    sizes = [_most_tokens(item) for _, item in inputs_of(given)]
    return Prepared(_amend_embeddings(body, served), sizes)


def inputs_of(given: Any) -> list[tuple[str, Any]]:
    """Each input of a checked request (a text, or a list of token ids) under its path."""
    if isinstance(given, str) or type(given[0]) is int:
        return [("input", given)]
    return [(f"input[{index}]", item) for index, item in enumerate(given)]


def _most_tokens(item: Any) -> int:
    return (len(item.encode()) if isinstance(item, str) else len(item)) + EXTRA_TOKENS


def _amend_embeddings(body: Json, served: Served) -> Amend | None:
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidRequestBody(
            "`encoding_format` must be float or base64.", param="encoding_format"
        )
    wanted = body.pop("dimensions", None)
    if wanted is None:
        return None
    whole = served.facts.embedding_dim
    if type(wanted) is not int:
        raise wrong("dimensions", "an integer", wanted)
    if not 1 <= wanted <= whole:
        raise InvalidRequestBody(
            f"`dimensions` is {wanted}; {served.model_id} gives 1 to {whole}.", param="dimensions"
        )
    return lambda answer: _shorten(answer, wanted)


def _check_batch(given: list[Any]) -> None:
    """Texts, token ids, or lists of token ids; never a mixture."""
    kind = type(given[0])
    if kind is not int:
        _check_number(given, "input", MOST_INPUTS)
    if kind not in (str, int, list):
        raise wrong("input[0]", "a string, a token id or a list of token ids", given[0])
    for index, item in enumerate(given):
        if type(item) is not kind:
            raise wrong(f"input[{index}]", "of one kind with the others", item)
        if item == "":
            raise InvalidRequestBody(f"`input[{index}]` is empty.", param=f"input[{index}]")
        if kind is list:
            check_ids(item, f"input[{index}]")


def _check_number(given: list[Any], path: str, most: int) -> None:
    if len(given) > most:
        raise InvalidRequestBody(
            f"`{path}` has {len(given)} items; send at most {most} in one request.", param=path
        )


def _shorten(answer: dict[str, Any], dimensions: int) -> None:
    """The first dimensions of every vector, brought to length one again (as OpenAI does)."""
    for item in answer["data"]:
        vector = item["embedding"]
        packed = isinstance(vector, str)
        values = array("f", base64.b64decode(vector)) if packed else array("f", vector)
        short = values[:dimensions]
        length = math.hypot(*short) or 1.0
        scaled = array("f", (value / length for value in short))
        item["embedding"] = base64.b64encode(scaled).decode() if packed else scaled.tolist()


def prepare_rerank(body: Json, served: Served) -> Prepared:
    """Check a rerank request: a query and documents (strings, or objects with ``text``).

    Raises:
        RequestRefused: With the path of what is wrong, for example ``documents[1]``.
    """
    if not served.plan.rerank:
        raise UnsupportedOperation(f"{served.model_id} is not loaded to rerank.")
    query = body.get("query")
    if not isinstance(query, str):
        raise wrong("query", "a string", query)
    if not query:
        raise InvalidRequestBody("`query` is empty.", param="query")
    documents = body.get("documents")
    if not isinstance(documents, list):
        raise wrong("documents", "a list", documents)
    if not documents:
        raise InvalidRequestBody("`documents` is empty.", param="documents")
    _check_number(documents, "documents", MOST_DOCUMENTS)
    fields = _rank_fields(body)
    texts = [_text_of(doc, f"documents[{index}]", fields) for index, doc in enumerate(documents)]
    body["documents"] = texts
    most = body.get("top_n")
    if most is not None and (type(most) is not int or most < 1):
        raise InvalidRequestBody("`top_n` must be a whole number from 1.", param="top_n")
    if most is not None:
        body["top_n"] = min(most, len(texts))  # an engine may know smaller numbers only
    shown = body.pop("return_documents", False)
    amend: Amend | None = (lambda answer: _add_documents(answer, documents)) if shown else None
    pairs = [len(query.encode()) + _most_tokens(text) for text in texts]
    return Prepared(amend, pairs)


def _rank_fields(body: Json) -> list[str]:
    """Which members of a document are read, in their order (as Cohere has it)."""
    fields = body.pop("rank_fields", None)
    if fields is None:
        return ["text"]
    if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
        raise wrong("rank_fields", "a list of strings", fields)
    if not fields:
        raise InvalidRequestBody("`rank_fields` is empty.", param="rank_fields")
    return fields


def _text_of(document: Any, path: str, fields: list[str]) -> str:
    if isinstance(document, str):
        return document
    if not isinstance(document, dict):
        raise wrong(path, "a string or an object", document)
    texts = [document[name] for name in fields if document.get(name) is not None]
    if not texts:
        raise InvalidRequestBody(f"`{path}` has no `{fields[0]}`.", param=path)
    wrong_one = next((text for text in texts if not isinstance(text, str)), None)
    if wrong_one is not None:
        raise wrong(path, "an object of strings", wrong_one)
    return "\n".join(texts)


def _add_documents(answer: dict[str, Any], documents: list[Any]) -> None:
    """Each as it was given; a text in an object, as clients expect it."""
    for result in answer["results"]:
        document = documents[result["index"]]
        result["document"] = {"text": document} if isinstance(document, str) else document


class PlainCleaner:
    """A whole body in, the same body under the served id out.

    Args:
        amend: What is done to the answer besides.
    """

    def __init__(self, served: Served, amend: Amend | None = None) -> None:
        self._amend = amend
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
            if self._amend is not None:
                self._amend(answer)
        except (msgspec.DecodeError, AttributeError, LookupError, TypeError, ValueError):
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
