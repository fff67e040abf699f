"""Asking an engine: one request, one whole answer. What relays tokens is ``helexa.relay``."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import UpstreamConnectionError, UpstreamTimeout
from helexa.neuron.engines.base import Address
from helexa.relay.client import request_json
from helexa.wire.bodies import UNREADABLE

COUNTED_BYTES_PER_S = 100_000
"""Of a prompt, at the least: a tenth of what a slow tokenizer does alone, for a busy host."""


def counting_s(size: int, least_s: float = 10.0) -> float:
    """How long an engine may count a prompt of ``size`` bytes (seconds); pure.

    Given up too early, a prompt that is far too long would look like an engine that does not
    answer: a client asks again then, where it should shorten its messages.
    """
    return least_s + size / COUNTED_BYTES_PER_S


class Answer(msgspec.Struct, frozen=True):
    """Status and whole body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The decoded body.

        Raises:
            UpstreamConnectionError: It is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except UNREADABLE:
            raise UpstreamConnectionError("The engine's answer is not JSON.") from None


async def ask(
    address: Address, method: str, path: str, body: object = None, *, timeout_s: float = 10.0
) -> Answer:
    """Send ``body`` (bytes, or anything JSON) and return the whole answer.

    Raises:
        UpstreamTimeout: Not answered within ``timeout_s``.
        UpstreamConnectionError: Nobody listens, or the answer broke off. Where the engine
            listens is nobody's business, so neither message says it.
    """
    url = f"http://{address.host}:{address.port}{path}"
    headers = {"authorization": f"Bearer {address.api_key}"}
    try:
        answer = await request_json(
            method, url, body, headers=headers, timeout=timeout_s, uds=address.uds
        )
    except UpstreamTimeout:
        raise UpstreamTimeout(f"The engine did not answer within {timeout_s:g} s.") from None
    except UpstreamConnectionError:
        raise UpstreamConnectionError("The engine cannot be reached.") from None
    return Answer(answer.status, answer.body)
