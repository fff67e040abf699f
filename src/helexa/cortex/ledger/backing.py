"""What a book asks of its store, and what it tells it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.ledger.base import RequestKey, Settlement
from helexa.cortex.ledger.scope import Account, Leased, Scope

State: TypeAlias = Literal["settled", "discarded", "expired"]
"""How a grant has ended: ``expired`` at the last count heard of."""


class Neighbours(Protocol):
    """Told of what other gateways of the same ledger say about a scope, by its name."""

    def wanted(self, scope: str, by: int) -> None:
        """The life ``by`` is short of tokens that we may not need."""

    def freed(self, scope: str) -> None:
        """Somebody has given tokens back because they were wanted."""


class Backing(Protocol):
    """A store, as the book uses it. Nothing here waits.

    Attributes:
        full: As much waits to be written as may; nothing more is to begin.
    """

    shared: bool
    life: int
    full: bool

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

    def awaited(self) -> AbstractContextManager[None]:
        """Inside, somebody waits for what was asked."""

    def give_back(self, scope: Scope) -> None:
        """Return free tokens, which ``scope.returned`` has counted; once, however often that has
        to be tried."""

    def settled(
        self,
        account: Account,
        last: Settlement,
        granted: int | None,
        prompt: int,
        completion: int,
        overrun: int,
        state: State,
    ) -> None:
        """Write down soon what a grant has cost, once its account's scopes have counted it.

        Args:
            last: What its node has told.
            granted: Tokens; None for an uncapped key.
            prompt, completion: As they are billed.
        """

    def discarded(
        self,
        account: Account,
        last: Settlement,
        granted: int | None,
        written: Callable[[], object],
    ) -> None:
        """Write down soon, since somebody may wait for it, that a grant has cost nothing whatever
        its node may tell, and call ``written`` then."""

    def heard(self, key: RequestKey, account: Account, granted: int, used: int) -> None:
        """Write down soon how far a running request is."""

    async def written(self) -> None:
        """See ``Ledger.written``."""


def too_much_unwritten() -> ServiceUnavailable:
    """What whoever asks is told while a store is ``full``."""
    return ServiceUnavailable(
        "The gateway's ledger cannot be written just now, and no more requests may wait for it.",
        retry_after_s=5,
    )
