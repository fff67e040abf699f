"""The ledger of a running gateway: grants in memory, out of blocks that are durably its own.

::

    grant ──▶ free covers it? ──yes──▶ at once
                 └──no──▶ ask the store for a block ──▶ room? ──no──▶ spent: refuse
                                                                      held:  wait, then refuse

A grant is a subtraction in memory. The store hears of what was settled in batches, and of blocks
ahead of their need. Without a store all room is free at once, and forgotten with the process.
All of it runs on one event loop, so a check and its debit are never separated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import Final

from helexa.core.errors import HelexaError, RateLimitExceeded
from helexa.core.principal import Principal
from helexa.cortex.ledger.backing import Backing, State, too_much_unwritten
from helexa.cortex.ledger.base import (
    Grant,
    KeyHolds,
    KeyUsage,
    LedgerSnapshot,
    RequestKey,
    Settled,
    Settlement,
    TokenRoom,
)
from helexa.cortex.ledger.blocks import Blocks, ring
from helexa.cortex.ledger.grants import OpenGrant, shown
from helexa.cortex.ledger.scope import Account, Scope
from helexa.cortex.ledger.standing import holds_of, room_of, usage_of

HELD_RETRY_AFTER_S: Final = 2.0
LEARN_S: Final = 3.0


class Book:
    """Implements ``Ledger``.

    Args:
        now: Epoch seconds.
        lease_s: How long a grant lives without a sign of its request.
        hold_wait_s: How long a request may wait for room that is only held.
        backing: None keeps everything in memory.
    """

    __slots__ = (
        "_accounts",
        "_backing",
        "_blocks",
        "_hold_wait_s",
        "_lease_s",
        "_now",
        "_open",
        "_shared",
        "before_short",
        "estimated",
        "overrun",
    )

    def __init__(
        self,
        now: Callable[[], float],
        *,
        lease_s: float = 60.0,
        hold_wait_s: float = 1.0,
        backing: Backing | None = None,
    ) -> None:
        self._now = now
        self._lease_s = lease_s
        self._hold_wait_s = hold_wait_s
        self._backing = backing
        self._shared = backing is not None and backing.shared
        self._accounts: dict[str, Account] = {}
        self._blocks = Blocks(now, backing)
        self._open: dict[RequestKey, OpenGrant] = {}
        self.overrun = 0
        self.estimated = 0
        self.before_short: Callable[[], object] = _nothing

    # ── a grant's life ──────────────────────────────────────────────────────────────────────

    def grant(
        self, principal: Principal, request_id: str, attempt: int, estimate: int
    ) -> Grant | Awaitable[Grant]:
        """See ``Ledger.grant``; something to await when what is free does not cover it."""
        account = self._accounts.get(principal.key_id)
        if account is None or account.principal is not principal:
            account = self._account(principal)
        key = (request_id, attempt)
        row = self._open.get(key)
        if row is not None:
            return shown(key, row)
        if self._backing is not None and self._backing.full:
            raise too_much_unwritten()
        if not account.scopes:
            return self._opened(key, account, None)
        want = estimate if estimate > 0 else 1
        if account.room() >= want and (not self._shared or self._blocks.may_grant()):
            return self._opened(key, account, want)
        return self._short(key, account, want)

    def extend(
        self, request_id: str, attempt: int, used: int, to: int
    ) -> int | Awaitable[int | None] | None:
        """See ``Ledger.extend``."""
        key = (request_id, attempt)
        row = self._open.get(key)
        if row is None:
            return None
        now = self._now()
        row.lease = now + self._lease_s
        row.used = max(row.used, used)
        if row.tokens is None:
            return None
        account, more = self._current(row), to - row.tokens
        if more > row.room():
            self.before_short()
            if self._open.get(key) is not row:
                return None  # its own end was among what had been put off
        if more > row.room() and self._blocks.more(account, now):
            return self._extend_later(key, row, to)
        return self._extended(key, row, to)

    def settle(self, settlement: Settlement) -> Settled | None:
        """See ``Ledger.settle``."""
        row = self._open.pop((settlement.request_id, settlement.attempt), None)
        if row is None:
            return None
        return self._close(row, settlement, "settled")

    def discard(self, settlement: Settlement) -> None:
        """See ``Ledger.discard``."""
        row = self._open.pop((settlement.request_id, settlement.attempt), None)
        if row is None:
            return
        if self._backing is None:
            self._release(row, 0)
        else:
            self._backing.discarded(
                row.account, settlement, row.tokens, lambda: self._release(row, 0)
            )

    def renew(self, request_id: str, attempt: int) -> None:
        """See ``Ledger.renew``."""
        row = self._open.get((request_id, attempt))
        if row is not None:
            row.lease = self._now() + self._lease_s

    def expire(self, live: Container[RequestKey]) -> dict[RequestKey, Settled]:
        """See ``Ledger.expire``."""
        now = self._now()
        closed = {}
        for key in [k for k, row in self._open.items() if row.lease <= now]:
            row = self._open[key]
            if key in live:
                row.lease = now + self._lease_s
                continue
            del self._open[key]
            self.estimated += row.used
            last = Settlement(*key, row.used, 0, estimated=True)
            closed[key] = self._close(row, last, "expired")
        return closed

    async def written(self) -> None:
        """See ``Ledger.written``."""
        if self._backing is not None:
            await self._backing.written()

    def refresh(self) -> None:
        """Others have given back or spent what is shared: ask how things stand."""
        self._blocks.refresh()

    # ── what is known ───────────────────────────────────────────────────────────────────────

    def tight(self, principal: Principal) -> bool:
        """See ``Ledger.tight``."""
        account = self._accounts.get(principal.key_id)
        return account is None or bool(account.waiters) or account.near_its_end()

    def check_room(self, principal: Principal, tokens: int) -> None:
        """See ``Ledger.check_room``."""
        account = self._account(principal)
        if account.scopes:
            account.refuse_if_spent(self._now(), tokens)

    async def learn(self, principals: Iterable[Principal]) -> None:
        """See ``Ledger.learn``."""
        scopes = {
            scope
            for principal in principals
            for account in (self._account(principal),)
            for scope in (account.own, account.shared)
        }
        if self._backing is None:
            return
        ask = [s for s in scopes if not s.known or (s.caps and self._backing.shared)]
        if ask:
            with self._backing.awaited():
                await asyncio.wait([self._blocks.ask(scope) for scope in ask], timeout=LEARN_S)

    def bind(self, principals: Iterable[Principal]) -> None:
        """See ``Ledger.bind``."""
        for principal in principals:
            account = self._accounts.get(principal.key_id)
            if account is not None and account.principal is not principal:
                self._account(principal)

    def usage(self, principal: Principal) -> KeyUsage:
        """See ``Ledger.usage``."""
        return usage_of(self._account(principal), self._now())

    def room(self, principal: Principal) -> TokenRoom | None:
        """See ``Ledger.room``."""
        account = self._accounts.get(principal.key_id)
        if account is None or account.principal is not principal:
            account = self._account(principal)
        return room_of(account, self._now())

    def holds(self) -> tuple[KeyHolds, ...]:
        """See ``Ledger.holds``."""
        return holds_of(self._accounts, self._open.values())

    def snapshot(self) -> LedgerSnapshot:
        """See ``Ledger.snapshot``."""
        grants = tuple(shown(key, row) for key, row in self._open.items())
        return LedgerSnapshot(grants, self.holds())

    @property
    def scopes(self) -> dict[str, Scope]:
        """Every scope that was met, by name."""
        return self._blocks.scopes

    # ── keys and their scopes ───────────────────────────────────────────────────────────────

    def _account(self, principal: Principal) -> Account:
        """The key's account, with the caps that it has by now."""
        account = self._accounts.get(principal.key_id)
        if account is not None and account.principal is principal:
            return account
        own = self._blocks.scope("key", principal.key_id, principal.caps)
        shared = self._blocks.scope("account", principal.account_id, principal.account_caps)
        scopes = tuple(scope for scope in (own, shared) if scope.caps)
        waiters = (shared if shared.caps else own).waiters
        if own.waiters is not waiters:
            ring(own.waiters, everybody=True)
            own.waiters = waiters
        fresh = Account(principal, own, shared, scopes, waiters)
        self._accounts[principal.key_id] = fresh
        for row in self._open.values():
            row.cover(scopes)
        for scope in scopes:
            self._blocks.make_up(scope)
        _wake(fresh)
        return fresh

    # ── granting ────────────────────────────────────────────────────────────────────────────

    def _opened(self, key: RequestKey, account: Account, tokens: int | None) -> Grant:
        scopes: tuple[Scope, ...] = ()
        if tokens is not None:
            scopes, take = account.scopes, self._blocks.take
            for scope in scopes:
                take(scope, tokens)
        self._open[key] = row = OpenGrant(account, scopes, tokens, self._now() + self._lease_s)
        return shown(key, row)

    def _short(self, key: RequestKey, account: Account, want: int) -> Grant | Awaitable[Grant]:
        """What is free does not cover it."""
        self.before_short()
        if account.room() >= want and self._blocks.may_grant():
            return self._opened(key, account, want)
        now = self._now()
        if all(scope.known for scope in account.scopes):
            account.refuse_if_spent(now)
        if self._blocks.more(account, now):
            return self._granted_later(key, account, want)
        room = account.room()
        if room > 0:
            return self._opened(key, account, min(room, want))
        return self._granted_later(key, account, want)

    async def _granted_later(self, key: RequestKey, account: Account, want: int) -> Grant:
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        try:
            while True:
                await self._blocks.lease(account, want)
                current = self._accounts[account.principal.key_id]
                if current is not account:  # its caps have changed meanwhile
                    answer = self.grant(current.principal, *key, want)
                    return answer if isinstance(answer, Grant) else await answer
                now, room = self._now(), account.room()
                if room > 0:
                    row = self._open.get(key)
                    return shown(key, row) if row else self._opened(key, account, min(room, want))
                account.refuse_if_spent(now)
                deadline = deadline or loop.time() + self._hold_wait_s
                if loop.time() >= deadline:
                    raise RateLimitExceeded(
                        f"All tokens left of {account.whose(self._grants(account))} open requests. "
                        "Wait for one to end.",
                        retry_after_s=HELD_RETRY_AFTER_S,
                    )
                await self._blocks.woken(account, deadline - loop.time())
        finally:
            # Whoever leaves passes the word on: there may be room for the next one too.
            _wake(account)

    # ── extending ───────────────────────────────────────────────────────────────────────────

    def _extended(self, key: RequestKey, row: OpenGrant, to: int) -> int | None:
        assert row.tokens is not None  # noqa: S101  # only capped grants come here
        more = min(to - row.tokens, row.room())
        if more > 0 and self._blocks.may_grant():
            row.tokens += more
            for scope in row.scopes:
                self._blocks.take(scope, more)
        if self._backing is not None:
            row.told = True
            self._backing.heard(key, row.account, row.tokens, row.used)
        return row.tokens

    async def _extend_later(self, key: RequestKey, row: OpenGrant, to: int) -> int | None:
        unsaid: HelexaError | None = None
        try:
            await self._blocks.lease(self._current(row), to - (row.tokens or 0))
        except HelexaError as error:
            unsaid = error
        if self._open.get(key) is not row:
            return None
        before, after = row.tokens, self._extended(key, row, to)  # as far as what is free goes
        if unsaid is not None and after == before:
            raise unsaid
        return after

    def _current(self, row: OpenGrant) -> Account:
        """A grant's account with the caps that it has by now; as it was where they are lifted."""
        current = self._accounts[row.account.principal.key_id]
        return current if current.scopes else row.account

    # ── ending ──────────────────────────────────────────────────────────────────────────────

    def _close(self, row: OpenGrant, last: Settlement, state: State) -> Settled:
        account, tokens = row.account, row.tokens
        prompt, completion = last.prompt, last.completion
        if prompt < 0 or completion < 0:  # no node of ours says so
            prompt, completion = max(0, prompt), max(0, completion)
        billed = reported = prompt + completion
        if tokens is not None and reported > tokens:
            billed = tokens
            self.overrun += reported - billed
            prompt = min(prompt, billed)
            completion = billed - prompt
        if billed:  # an attempt that was refused or never sent is no request
            account.count(prompt, completion)
        if tokens is not None or account.own.caps or account.shared.caps:
            self._release(row, billed)
        if self._backing is not None and (reported or row.told):
            over = reported - billed
            self._backing.settled(account, last, tokens, prompt, completion, over, state)
        who = account.principal
        return Settled(who.account_id, who.key_id, prompt, completion, reported - billed)

    def _release(self, row: OpenGrant, billed: int) -> None:
        """Give back what a grant did not use."""
        account, scopes, now = row.account, row.scopes, self._now()
        for scope in scopes:
            scope.end(row.tokens, billed, now)
        for scope in (account.own, account.shared):
            if scope.caps and scope not in scopes:  # it has been given them meanwhile
                scope.end(None, billed, now)
            if scope.rebound:
                self._blocks.return_surplus(scope)
        current = self._accounts[account.principal.key_id]
        if current.waiters:
            _wake(current)
        for scope in account.scopes:
            if scope.short_until:
                self._blocks.left(scope)

    def _grants(self, account: Account) -> int:
        key = account.principal.key_id
        return sum(row.account.principal.key_id == key for row in self._open.values())


def _wake(account: Account) -> None:
    # All of them when keys share caps: room that one key may not use, another may.
    ring(account.waiters, everybody=bool(account.shared.caps))


def _nothing() -> None:
    """Nobody puts anything off."""
