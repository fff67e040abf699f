"""Responses requests: the dialect joined with what is kept.

::

    body ─▶ nothing kept is meant ─────────────────▶ Translation ─▶ … ─▶ keep
        └─▶ previous_response_id, item_reference ─▶ look up ─▶ Translation ─▶ … ─▶ keep
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from helexa.core.errors import (
    InvalidRequestBody,
    PayloadTooLarge,
    PreviousResponseNotFound,
    UnsupportedParameter,
)
from helexa.core.ids import letters
from helexa.cortex.exchange.desk import THREAD_BYTES
from helexa.cortex.exchange.route import Asked
from helexa.cortex.responses.base import Kept, KeptItem, Shelf
from helexa.cortex.responses.keeper import Keeper
from helexa.wire.responses.body import Body
from helexa.wire.responses.decode import read_body, referred_items
from helexa.wire.responses.dialect import Keep, Maker, translate_responses
from helexa.wire.translation import Translation

Json = dict[str, Any]
Found = tuple[list[bytes] | None, dict[str, bytes]]

_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
}
MOST_REFERRED = 4096
"""Kept items that one input may name, however often each."""
_BITS = 128  # an id is all that whoever may read a response has to know


def unguessable(prefix: str) -> str:
    """An id of 128 random bits in letters."""
    return prefix + letters(_BITS, random.SystemRandom())


class ResponsesRoute:
    """Translates ``POST /v1/responses``, and what only counts its prompt.

    Args:
        keeper: None where nothing is kept.
        now: Unix seconds.
        most_bytes: Of a request with all that it refers to.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        now: Callable[[], float],
        most_bytes: int,
        ids: Callable[[str], str] = unguessable,
    ) -> None:
        self._keeper = keeper
        self._now = now
        self._most_bytes = most_bytes
        self._maker = Maker(ids, now)

    def translate(self, asked: Asked) -> Translation | Awaitable[Translation]:
        """See ``exchange.route.Translate``.

        Raises:
            HelexaError: What is wrong with the request, or cannot be done.
        """
        body = read_body(asked.body)
        keeper = self._keeper
        if keeper is None:
            if body.previous_response_id is not None:
                raise UnsupportedParameter(
                    "`previous_response_id` cannot be used: this gateway keeps no responses "
                    "(`[responses] store` is off). Send the whole conversation as `input`.",
                    param="previous_response_id",
                )
            return translate_responses(body, self._maker)
        if body.previous_response_id is None and not referred_items(body):
            return translate_responses(body, self._maker, keep=self._keeping(keeper, asked, body))
        return self._continued(keeper, asked, body)

    def count(self, asked: Asked) -> Translation | Awaitable[Translation]:
        """The same for ``POST /v1/responses/input_tokens``; nothing is kept.

        Raises:
            HelexaError: What is wrong with the request, or cannot be done.
        """
        made = self.translate(asked)
        return made.counted() if isinstance(made, Translation) else _counted(made)

    async def _continued(self, keeper: Keeper, asked: Asked, body: Body) -> Translation:
        """A request that refers to what is kept."""
        previous, items = body.previous_response_id, referred_items(body)
        wanted = tuple(dict.fromkeys(items))
        if len(wanted) > MOST_REFERRED:
            raise InvalidRequestBody(
                f"`input` refers to {len(wanted)} items; it may refer to {MOST_REFERRED}.",
                param="input",
            )

        def look(shelf: Shelf, owner: str) -> Found:
            history = shelf.history(owner, previous) if previous is not None else []
            return history, shelf.named(owner, wanted) if wanted else {}

        history, found = await keeper.ask(asked.principal, look)
        if history is None:
            raise PreviousResponseNotFound(
                f"Previous response with id {str(previous)[:80]!r} not found. It may have "
                "expired; send the whole conversation as `input`.",
                param="previous_response_id",
            )
        size = len(asked.body) + sum(map(len, history))
        size += sum(len(found.get(item, b"")) for item in items)
        if size > self._most_bytes:
            raise PayloadTooLarge(
                f"With what it refers to, the request is larger than {self._most_bytes} bytes."
            )
        keep = self._keeping(keeper, asked, body, found)

        def translated() -> Translation:
            return translate_responses(body, self._maker, history=history, found=found, keep=keep)

        return translated() if size < THREAD_BYTES else await asyncio.to_thread(translated)

    def _keeping(
        self, keeper: Keeper, asked: Asked, body: Body, found: dict[str, bytes] | None = None
    ) -> Keep | None:
        """Keeps the response when it has ended; the work of it is the keeper's."""
        if body.store is False:
            return None
        ids, now = self._maker.ids, self._now

        def make(final: Json) -> Kept:
            sent = input_items(asked.body, found or {}, ids)
            return kept(final, sent, body.previous_response_id, now())

        return lambda final: keeper.keep(asked.principal, lambda: make(final))


async def _counted(making: Awaitable[Translation]) -> Translation:
    return (await making).counted()


def kept(final: Json, sent: list[Json], previous: str | None, at: float) -> Kept:
    """What is kept of a response: its body, and every item of its input and its output."""
    items = [KeptItem(item["id"], output=False, body=_json(item)) for item in sent]
    items += [KeptItem(item["id"], output=True, body=_json(item)) for item in final["output"]]
    return Kept(final["id"], previous, at, _json(final), tuple(items))


def input_items(raw: bytes, found: dict[str, bytes], ids: Callable[[str], str]) -> list[Json]:
    """The input of a request as whole items: typed, with ids and states, texts as parts.

    Args:
        found: Items that it refers to; they stand in their places.
    """
    given = msgspec.json.decode(raw).get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_whole(item, found, ids) for item in given or ()]


def _whole(item: Json, found: dict[str, bytes], ids: Callable[[str], str]) -> Json:
    kind = item.get("type") or "message"
    if kind == "item_reference":
        there: Json = msgspec.json.decode(found[item["id"]])
        return there
    out = {**item, "type": kind, "id": item.get("id") or ids(_PREFIXES.get(kind, "item_"))}
    if kind in _PREFIXES and kind != "reasoning":
        out["status"] = item.get("status") or "completed"
    if kind == "message" and isinstance(item.get("content"), str):
        text = {"type": "input_text", "text": item["content"]}
        if item.get("role") == "assistant":
            text = {**text, "type": "output_text", "annotations": [], "logprobs": []}
        out["content"] = [text]
    return out


def _json(value: Json) -> bytes:
    return msgspec.json.encode(value)
