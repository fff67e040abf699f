"""What a gateway has to write down and gives back, and how a batch of it is put together.

One batch is on its way at a time. So when it is closed, all that a scope has counted and the
store does not know of is this batch's: its sums are read off the scopes, and nothing is added up
by the request.
"""

from __future__ import annotations

import asyncio
from typing import Final

from helexa.cortex.ledger.base import RequestKey
from helexa.cortex.ledger.scope import Account, Scope
from helexa.cortex.ledger.spend import WIDTH, Batch, Line, Sum

_AT: Final = Line._fields.index("at")


class Pending:
    """What one batch carries, and who waits for it.

    Attributes:
        lines: What ended: the values of a ``Line`` each, one after the other. A request leaves
            no object of its own: it would be found cold when the batch is written, and again when
            it is freed.
        accounts: Whose they are.
        returned: Scopes that got free tokens back.
        wanted: Scopes among them that another gateway is short of.
        sums, paid: By scope, once it is closed: what ``lines`` cost it, and what its block pays
            or gives back.
    """

    __slots__ = (
        "accounts",
        "lines",
        "paid",
        "returned",
        "running",
        "sums",
        "waiters",
        "wanted",
    )

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.accounts: set[Account] = set()
        self.running: dict[RequestKey, tuple[Account, int, int]] = {}
        self.waiters: list[asyncio.Future[None]] = []
        self.returned: set[Scope] = set()
        self.wanted: set[str] = set()
        self.sums: dict[Scope, Sum] = {}
        self.paid: dict[Scope, int] = {}

    def __bool__(self) -> bool:
        return bool(self.lines or self.running or self.returned)

    def close(self) -> None:
        """Read off the scopes what it carries for them; nothing is added to it any more."""
        scopes = set(self.returned)
        for account in self.accounts:
            scopes.add(account.own)
            scopes.add(account.shared)
        for scope in scopes:
            found = Sum(*scope.pending)
            if found.requests:
                self.sums[scope] = found
            if scope.owed:
                self.paid[scope] = scope.owed


def batch_of(pending: Pending, number: int, at: int, life: int) -> Batch:
    """The batch with its number; made anew whenever it is tried.

    Args:
        at: Epoch milliseconds.
    """
    lines = pending.lines
    lines[_AT::WIDTH] = [at] * (len(lines) // WIDTH)
    return Batch(
        number,
        at,
        lines,
        _running(pending, at, life),
        sorted((scope.name, tokens) for scope, tokens in pending.paid.items()),
        {scope.name: found for scope, found in pending.sums.items()},
    )


def _running(pending: Pending, at: int, life: int) -> list[Line]:
    return [
        Line(
            *key, life, "open", at, account.principal.account_id, account.principal.key_id,
            "", "", granted, used,
        )
        for key, (account, granted, used) in pending.running.items()
    ]  # fmt: skip
