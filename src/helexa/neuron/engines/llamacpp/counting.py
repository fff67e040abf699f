"""How many tokens llama.cpp will make of a request, asked of its own template and tokenizer.

::

    chat         /v1/chat/completions/input_tokens    images included, none of them computed
    completions  /tokenize
    embeddings   /tokenize, all inputs at once
    rerank       /tokenize, the query once and all documents at once
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from helexa.core.errors import ContextLengthExceeded
from helexa.neuron.engines.base import Address, EngineRequest, Served
from helexa.neuron.engines.http import ask, counting_s
from helexa.neuron.engines.llamacpp.errors import map_error
from helexa.neuron.engines.llamacpp.planning import longest_input
from helexa.neuron.engines.vectors import inputs_of

_CHAT = "/v1/chat/completions"
_TEXT = "/v1/completions"
_EMBEDDINGS = "/v1/embeddings"
_PAIR_TOKENS = 4
"""Around a query and a document: a beginning, an end and a separator, an end."""
_TEXT_S, _IMAGES_S = 10.0, 60.0
"""Images are unpacked and brought to size for that: seconds for the largest."""
_THREAD_BYTES = 256 * 1024


class _Prompt(msgspec.Struct):
    """What of a text completion is counted."""

    prompt: str | list[int]


class _Inputs(msgspec.Struct):
    """What of an embeddings request is counted."""

    input: str | list[str | int | list[int]]


class _Pairs(msgspec.Struct):
    """What of a rerank request is counted."""

    query: str
    documents: list[str]


async def off_loop(size: int, do: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    """``do`` here, or in a thread where ``size`` bytes would hold the loop up."""
    if size < _THREAD_BYTES:
        return do(*args, **kwargs)
    return await asyncio.to_thread(do, *args, **kwargs)


async def count(address: Address, asked: EngineRequest, served: Served) -> int:
    """Prompt tokens of a cleaned request, all inputs together.

    Exact, but for rerank: a model with a template of its own for pairs adds that template's.

    Raises:
        ContextLengthExceeded: One of several inputs is too long by itself.
        HelexaError: The engine refuses the request.
    """
    if asked.path == _CHAT:
        least_s = _TEXT_S if asked.most is None else _IMAGES_S
        within = counting_s(len(asked.body), least_s)
        answer = await ask(address, "POST", _CHAT + "/input_tokens", asked.body, timeout_s=within)
        if answer.status != 200:
            raise map_error(answer.status, answer.body, served)
        return int(answer.json()["input_tokens"])
    count = _Count(address, served, len(asked.body))
    if asked.path == _TEXT:
        prompt = (await count.decode(asked.body, _Prompt)).prompt
        return len(prompt) if isinstance(prompt, list) else await count.tokens(prompt)
    if asked.path == _EMBEDDINGS:
        return await count.inputs((await count.decode(asked.body, _Inputs)).input)
    pairs = await count.decode(asked.body, _Pairs)
    return await count.pairs(pairs.query, pairs.documents)


class _Count:
    """Counts for one request.

    Args:
        size: Bytes of its body; what handles a large one leaves the event loop.
    """

    def __init__(self, address: Address, served: Served, size: int) -> None:
        self._address = address
        self._served = served
        self._size = size
        self._limit = longest_input(served.facts, served.plan)

    async def decode(self, body: bytes, kind: type) -> Any:
        return await off_loop(self._size, msgspec.json.decode, body, type=kind)

    async def tokens(self, text: str | Sequence[str], *, special: bool = True) -> int:
        """Of one text, or of several one after the other; ``special`` adds what comes around."""
        given = {"content": text, "add_special": special}
        asked = await off_loop(self._size, msgspec.json.encode, given)
        within = counting_s(len(asked))
        answer = await ask(self._address, "POST", "/tokenize", asked, timeout_s=within)
        if answer.status != 200:
            raise map_error(answer.status, answer.body, self._served)
        return len((await off_loop(self._size, msgspec.json.decode, answer.body))["tokens"])

    async def inputs(self, given: object) -> int:
        """Of every input, each with what comes around it; token ids come as they are."""
        around = await self.tokens("")
        texts: list[str] = []
        total = 0
        for path, item in inputs_of(given):
            if isinstance(item, str):
                texts.append(item)
                if len(item.encode()) + around > self._limit:
                    self._check(await self.tokens(item), path)
            else:
                total += len(item)
                self._check(len(item), path)
        if texts:
            total += await self.tokens(texts, special=False) + around * len(texts)
        return total

    async def pairs(self, query: str, documents: list[str]) -> int:
        """Of every document with the query before it."""
        before = await self.tokens(query, special=False) + _PAIR_TOKENS
        for index, document in enumerate(documents):
            if len(document.encode()) + before > self._limit:
                size = await self.tokens(document, special=False) + before
                self._check(size, f"documents[{index}]")
        return await self.tokens(documents, special=False) + before * len(documents)

    def _check(self, size: int, path: str) -> None:
        if size > self._limit:
            raise ContextLengthExceeded(size, self._limit, path)
