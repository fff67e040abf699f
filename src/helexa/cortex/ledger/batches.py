"""What a gateway has to write down and gives back, and how a batch of it is put together.

The sums of a batch are made once, where it is written: the store adds them to what keys and
accounts have spent, and the gateway takes them off what the store does not know yet.
"""

from __future__ import annotations

import asyncio

from helexa.cortex.ledger.backing import Entry
from helexa.cortex.ledger.base import RequestKey
from helexa.cortex.ledger.database import Row
from helexa.cortex.ledger.scope import Account, Scope
from helexa.cortex.ledger.spend import Batch, Line, Sum


class Pending:
    """What one batch carries, and who waits for it.

    Attributes:
        returned: Free tokens that go back to their scopes.
        wanted: Scopes among them that another gateway is short of.
        sums, paid: By scope, once the batch has been made; what ``batch_of`` counted.
    """

    __slots__ = ("entries", "paid", "returned", "running", "sums", "waiters", "wanted")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.running: dict[RequestKey, tuple[Account, int, int]] = {}
        self.waiters: list[asyncio.Future[None]] = []
        self.returned: dict[Scope, int] = {}
        self.wanted: set[str] = set()
        self.sums: dict[Scope, Sum] = {}
        self.paid: dict[Scope, int] = {}

    def __bool__(self) -> bool:
        return bool(self.entries or self.running or self.returned)


def batch_of(pending: Pending, number: int, at: int, life: int) -> Batch:
    """The batch with its number; made anew whenever it is tried.

    Args:
        at: Epoch milliseconds.
    """
    lines: list[Row] = []
    sums: dict[Account, Sum] = {}
    paid = dict(pending.returned)
    for account, last, granted, blocks, prompt, completion, overrun, state in pending.entries:
        who, total = account.principal, prompt + completion
        line = (  # a ``Line``, without what a named tuple's own constructor costs
            last.request_id, last.attempt, life, state, at, who.account_id, who.key_id, last.node,
            last.model, granted, total, prompt, completion, last.cached, last.reasoning, overrun,
            int(last.estimated),
        )  # fmt: skip
        lines.append(line)
        if not total:
            continue
        found = sums.get(account)
        if found is None:
            found = sums[account] = Sum()
        found.requests += 1
        found.prompt += prompt
        found.completion += completion
        for scope in blocks:
            paid[scope] = paid.get(scope, 0) + total
    scopes: dict[Scope, Sum] = {}
    for account, found in sums.items():
        for scope in (account.own, account.shared):
            scopes.setdefault(scope, Sum()).join(found)
    pending.sums, pending.paid = scopes, paid
    return Batch(
        number,
        at,
        lines,
        _running(pending, at, life),
        sorted((scope.name, tokens) for scope, tokens in paid.items()),
        {scope.name: found for scope, found in scopes.items()},
    )


def _running(pending: Pending, at: int, life: int) -> list[Line]:
    return [
        Line(
            *key, life, "open", at, account.principal.account_id, account.principal.key_id,
            "", "", granted, used,
        )
        for key, (account, granted, used) in pending.running.items()
    ]  # fmt: skip
