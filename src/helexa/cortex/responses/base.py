"""What is kept of a response, and what every shelf of them can do.

A response belongs to the key that made it: nobody else finds it, by whichever id. A chain of
responses is whole or it is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class KeptItem(msgspec.Struct, frozen=True):
    """One item of a response's conversation.

    Args:
        output: The model made it; otherwise the client sent it.
        body: JSON.
    """

    item_id: str
    output: bool
    body: bytes


class Kept(msgspec.Struct, frozen=True):
    """A response that has ended.

    Args:
        previous: The response that it continues.
        at: Epoch seconds of its end.
        body: JSON, as the client got it.
        items: Input, then output; in order.
    """

    response_id: str
    previous: str | None
    at: float
    body: bytes
    items: tuple[KeptItem, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it is counted with."""
        return len(self.body) + sum(len(item.body) for item in self.items)


class Shelf(Protocol):
    """Where responses are kept. Belongs to one thread, and may block it.

    Every method may raise ``OSError`` for a shelf that cannot be reached.
    """

    def put(self, owner: str, kept: Kept) -> None:
        """Keep a response; the oldest make room for it."""

    def find(self, owner: str, response_id: str) -> bytes | None:
        """The body of a response."""

    def inputs(self, owner: str, response_id: str) -> list[bytes] | None:
        """What the client had sent for it, in order; None without the response."""

    def history(self, owner: str, response_id: str) -> list[bytes] | None:
        """All items up to the end of the response, oldest first; None when any of the chain is
        no longer there."""

    def named(self, owner: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        """Those of the items that are there."""

    def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False without it."""

    def sweep(self) -> None:
        """Forget what is too old, and the oldest of what is too much."""

    def give_up(self) -> None:
        """Called from another thread: what is under way has been silent for too long. It raises,
        and what comes next connects anew."""

    def close(self) -> None:
        """Let go of what is open."""


LONGEST_CHAIN = 1000
"""Responses that one may continue; a longer chain is not there."""
