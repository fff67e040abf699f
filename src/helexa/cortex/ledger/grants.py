"""An open grant, as the book keeps it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from helexa.cortex.ledger.base import Grant, RequestKey
from helexa.cortex.ledger.scope import Account, Scope


class OpenGrant(msgspec.Struct, gc=False):
    """One open grant; ``tokens`` is None for an uncapped key, ``used`` the last count heard.

    ``told``: the store has a row of it, which wants an end.
    """

    account: Account
    scopes: tuple[Scope, ...]
    tokens: int | None
    lease: float
    used: int = 0
    told: bool = False

    def room(self) -> int:
        """Tokens that it can be raised by without asking the store."""
        return min(scope.free for scope in self.scopes)

    def cover(self, scopes: Iterable[Scope]) -> None:
        """Bind those of our account that have been given caps meanwhile; what is free there may
        be below 0 until the store makes up for it. Without a cap it goes on holding nothing."""
        tokens = self.tokens
        if tokens is None:
            return
        for scope in scopes:
            if scope not in self.scopes and scope in (self.account.own, self.account.shared):
                self.scopes += (scope,)
                scope.take(tokens)


def shown(key: RequestKey, row: OpenGrant) -> Grant:
    """The grant, as its request gets it."""
    who = row.account.principal
    return Grant(key[0], key[1], who.account_id, who.key_id, row.tokens)
