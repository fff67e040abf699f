"""What a book asks of its store, and what it tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from helexa.cortex.ledger.base import RequestKey, Settlement
from helexa.cortex.ledger.scope import Account, Leased, Scope

Entry: TypeAlias = tuple[Account, Settlement, int | None, tuple[Scope, ...], int, int, int, str]
"""What one ended grant has cost, for the store: whose it was, what its node has told, the tokens
granted (None for an uncapped key), the scopes whose block pays, prompt and completion as they are
billed, the overrun, and the state: ``settled``, ``discarded``, or ``expired`` at the last count
heard of. A plain tuple: every request leaves one."""


class Neighbours(Protocol):
    """Told of what other gateways of the same ledger say about a scope, by its name."""

    def wanted(self, scope: str, by: int) -> None:
        """The life ``by`` is short of tokens that we may not need."""

    def freed(self, scope: str) -> None:
        """Somebody has given tokens back because they were wanted."""


class Backing(Protocol):
    """A store, as the book uses it. Nothing here waits."""

    shared: bool
    life: int

    def may_grant(self) -> bool:
        """False once another gateway may have been given what is ours."""

    def hear(self, neighbours: Neighbours) -> None:
        """Tell ``neighbours`` what the other gateways say from now on."""

    def lease(
        self, scope: Scope, need: int | None, done: Callable[[Leased | Exception], None]
    ) -> None:
        """Ask for a block, with at least ``need`` tokens if there are; None only looks.

        If there are fewer and other gateways have some, they are told that we want them.
        """

    def give_back(self, scope: Scope, tokens: int) -> None:
        """Return free tokens, which have been subtracted already; once, however often that has
        to be tried."""

    def settled(self, entry: Entry) -> None:
        """Write it down soon."""

    def discarded(self, entry: Entry, written: Callable[[], object]) -> None:
        """Write it down soon, since somebody may wait for it, and call ``written`` then."""

    def heard(self, key: RequestKey, account: Account, granted: int, used: int) -> None:
        """Write down soon how far a running request is."""

    async def written(self) -> None:
        """See ``Ledger.written``."""
