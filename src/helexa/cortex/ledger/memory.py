"""The ledger of a gateway that keeps nothing beyond its own life.

It has the exact semantics of a durable one: conditional debits, several caps per key, hard
balances and rolling windows, and one end per grant. All of it runs on one event loop, so a check
and its debit are never separated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Principal
from helexa.cortex.ledger.base import (
    Grant,
    KeyHolds,
    KeyUsage,
    LedgerSnapshot,
    RequestKey,
    Settled,
    Settlement,
)
from helexa.cortex.ledger.window import CapState, state_of

HELD_RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class _Account:
    """One key. ``caps`` are its own, then those it shares with the other keys of its account.

    ``waiters`` are requests that found all room held; keys that share caps share them too.
    """

    principal: Principal
    account_id: str
    key_id: str
    caps: tuple[CapState, ...] = ()
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    grants: int = 0
    held: int = 0
    requests: int = 0
    prompt: int = 0
    completion: int = 0

    def available(self, now: float) -> int:
        return min(cap.available(now) for cap in self.caps)


@dataclass(slots=True)
class _Shared:
    """What the keys of one account have in common."""

    caps: tuple[CapState, ...] = ()
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)


@dataclass(slots=True)
class _Open:
    """One open grant; ``tokens`` is None for an uncapped key, ``used`` the last count heard."""

    account: _Account
    tokens: int | None
    lease: float
    used: int = 0


class MemoryLedger:
    """Budgets in memory.

    Args:
        now: Epoch seconds.
        lease_s: How long a grant lives without a sign of its request.
        hold_wait_s: How long a request may wait for room that is only held.
    """

    __slots__ = (
        "_accounts",
        "_hold_wait_s",
        "_lease_s",
        "_now",
        "_open",
        "_shared",
        "estimated",
        "overrun",
    )

    def __init__(
        self, now: Callable[[], float], *, lease_s: float = 60.0, hold_wait_s: float = 1.0
    ) -> None:
        self._now = now
        self._lease_s = lease_s
        self._hold_wait_s = hold_wait_s
        self._accounts: dict[str, _Account] = {}
        self._shared: dict[str, _Shared] = {}
        self._open: dict[RequestKey, _Open] = {}
        self.overrun = 0
        self.estimated = 0

    def grant(
        self, principal: Principal, request_id: str, attempt: int, estimate: int
    ) -> Grant | Awaitable[Grant]:
        """See ``Ledger.grant``; something to await only when all room is held."""
        account = self._accounts.get(principal.key_id)
        if account is None or account.principal is not principal:
            account = self._account(principal)
        key = (request_id, attempt)
        row = self._open.get(key)
        if row is not None:
            return _grant(key, row)
        now = self._now()
        if not account.caps:
            account.grants += 1
            self._open[key] = _Open(account, None, now + self._lease_s)
            return Grant(request_id, attempt, account.account_id, account.key_id, None)
        room = account.available(now)
        if room > 0:
            return self._opened(key, account, min(room, max(1, estimate)), now)
        _raise_if_spent(account, now)
        return self._wait_for_room(key, account, max(1, estimate))

    def extend(self, request_id: str, attempt: int, used: int, to: int) -> int | None:
        """See ``Ledger.extend``; always at once."""
        row = self._open.get((request_id, attempt))
        if row is None:
            return None
        now = self._now()
        row.lease = now + self._lease_s
        row.used = max(row.used, used)
        if row.tokens is None:
            return None
        more = min(to - row.tokens, row.account.available(now))
        if more > 0:
            _hold(row.account, more)
            row.tokens += more
        return row.tokens

    def settle(self, settlement: Settlement) -> Settled | None:
        """See ``Ledger.settle``."""
        row = self._open.pop((settlement.request_id, settlement.attempt), None)
        if row is None:
            return None
        if settlement.estimated:
            self.estimated += settlement.prompt + settlement.completion
        prompt, completion = settlement.prompt, settlement.completion
        if row.tokens is None and prompt >= 0 and completion >= 0:
            account = row.account
            account.grants -= 1
            account.requests += 1
            account.prompt += prompt
            account.completion += completion
            return Settled(account.account_id, account.key_id, prompt, completion)
        return self._close(row, max(0, prompt), max(0, completion))

    def expire(self, live: Container[RequestKey]) -> tuple[Settled, ...]:
        """See ``Ledger.expire``."""
        now = self._now()
        closed = []
        for key in [k for k, row in self._open.items() if row.lease <= now]:
            row = self._open[key]
            if key in live:
                row.lease = now + self._lease_s
                continue
            del self._open[key]
            self.estimated += row.used
            closed.append(self._close(row, row.used, 0))
        return tuple(closed)

    def check_room(self, principal: Principal, tokens: int) -> None:
        """See ``Ledger.check_room``."""
        _raise_if_spent(self._account(principal), self._now(), tokens)

    def usage(self, principal: Principal) -> KeyUsage:
        """See ``Ledger.usage``."""
        account = self._account(principal)
        now = self._now()
        windows = tuple(cap.usage(now) for cap in account.caps)
        tightest = min(windows, key=lambda w: w.available_tokens, default=None)
        spent = account.prompt + account.completion
        return KeyUsage(
            account_id=account.account_id,
            key_id=account.key_id,
            hard_cap=None if tightest is None else tightest.hard_cap,
            spent_tokens=spent if tightest is None else tightest.spent_tokens,
            open_tokens=0 if tightest is None else tightest.open_tokens,
            available_tokens=None if tightest is None else tightest.available_tokens,
            requests=account.requests,
            prompt_tokens=account.prompt,
            completion_tokens=account.completion,
            window=None if tightest is None else tightest.window,
            resets_at=None if tightest is None else tightest.resets_at,
            windows=windows,
        )

    def holds(self) -> tuple[KeyHolds, ...]:
        """See ``Ledger.holds``."""
        return tuple(
            KeyHolds(a.account_id, a.key_id, a.grants, a.held) for a in self._accounts.values()
        )

    def snapshot(self) -> LedgerSnapshot:
        """See ``Ledger.snapshot``."""
        grants = tuple(_grant(key, row) for key, row in self._open.items())
        return LedgerSnapshot(grants, self.holds())

    def _account(self, principal: Principal) -> _Account:
        account = self._accounts.get(principal.key_id)
        if account is None:
            account = _Account(principal, principal.account_id, principal.key_id)
            self._accounts[principal.key_id] = account
            self._apply_caps(account)
        elif account.principal != principal:
            account.principal = principal
            self._apply_caps(account)
        return account

    def _apply_caps(self, account: _Account) -> None:
        """Give a key the caps of its principal; what was spent under a like one stays spent."""
        principal = account.principal
        before = [state for state in account.caps if state.scope == "key"]
        caps = tuple(state_of(cap, "key", before, account.held) for cap in principal.caps)
        shared = self._shared.get(principal.account_id)
        if shared is None:
            shared = self._shared[principal.account_id] = _Shared()
        if tuple(state.cap for state in shared.caps) != principal.account_caps:
            self._share(shared, principal)
        account.caps = caps + shared.caps
        if shared.caps:
            account.waiters = shared.waiters
        _wake(account)

    def _share(self, shared: _Shared, principal: Principal) -> None:
        """Give all keys of an account other caps in common, those with open grants too."""
        keys = [a for a in self._accounts.values() if a.account_id == principal.account_id]
        held = sum(key.held for key in keys)
        shared.caps = tuple(
            state_of(cap, "account", shared.caps, held) for cap in principal.account_caps
        )
        for key in keys:
            key.caps = (*(s for s in key.caps if s.scope == "key"), *shared.caps)

    def _opened(self, key: RequestKey, account: _Account, tokens: int | None, now: float) -> Grant:
        if tokens is not None:
            _hold(account, tokens)
        account.grants += 1
        row = self._open[key] = _Open(account, tokens, now + self._lease_s)
        return _grant(key, row)

    def _close(self, row: _Open, prompt: int, completion: int) -> Settled:
        account = row.account
        reported = prompt + completion
        billed = reported if row.tokens is None else min(reported, row.tokens)
        prompt = min(prompt, billed)
        account.grants -= 1
        account.requests += 1
        account.prompt += prompt
        account.completion += billed - prompt
        self.overrun += reported - billed
        if row.tokens is not None:
            now = self._now()
            account.held -= row.tokens
            for cap in account.caps:
                cap.held -= row.tokens
                cap.book(billed, now)
            _wake(account)
        return Settled(
            account.account_id, account.key_id, prompt, billed - prompt, reported - billed
        )

    async def _wait_for_room(self, key: RequestKey, account: _Account, estimate: int) -> Grant:
        try:
            async with asyncio.timeout(self._hold_wait_s):
                while True:
                    await _woken(account)
                    now = self._now()
                    room = account.available(now)
                    if room > 0:
                        return self._opened(key, account, min(room, estimate), now)
                    _raise_if_spent(account, now)
        except TimeoutError:
            raise RateLimitExceeded(
                f"All tokens left of {_whose(account)} open requests. Wait for one to end.",
                retry_after_s=HELD_RETRY_AFTER_S,
            ) from None
        finally:
            # Whoever leaves passes the word on: there may be room for the next one too.
            _wake(account)


def _grant(key: RequestKey, row: _Open) -> Grant:
    account = row.account
    return Grant(key[0], key[1], account.account_id, account.key_id, row.tokens)


def _whose(account: _Account) -> str:
    if any(cap.scope == "account" for cap in account.caps):
        return "this key's or its account's budget are held by"
    return f"this key's budget are held by its {account.grants}"


def _hold(account: _Account, tokens: int) -> None:
    account.held += tokens
    for cap in account.caps:
        cap.held += tokens


def _raise_if_spent(account: _Account, now: float, tokens: int = 1) -> None:
    """Refuse when a cap is too far spent for ``tokens``; return when the room is only held."""
    spent = [cap for cap in account.caps if cap.spent(now) + tokens > cap.limit]
    what = "is spent" if tokens == 1 else f"has no room for the {tokens} tokens this request needs"
    for cap in spent:
        if not cap.rolling:
            raise InsufficientQuota(
                f"This {cap.scope}'s token balance {what}. "
                "Ask the operator of this gateway for more."
            )
    if spent:
        resets_at, cap = max(((cap.room_at(now), cap) for cap in spent), key=lambda at: at[0])
        raise RateLimitExceeded(
            f"This {cap.scope}'s token budget for the current window {what}.",
            retry_after_s=round(max(0.0, resets_at - now), 3),
            resets_at=resets_at,
        )


async def _woken(account: _Account) -> None:
    future = asyncio.get_running_loop().create_future()
    account.waiters.append(future)
    try:
        await future
    finally:
        with contextlib.suppress(ValueError):
            account.waiters.remove(future)


def _wake(account: _Account) -> None:
    # All of them when keys share caps: room that one key may not use, another may.
    shared = any(cap.scope == "account" for cap in account.caps)
    for _ in range(len(account.waiters)):
        future = account.waiters.popleft()
        if not future.done():
            future.set_result(None)
            if not shared:
                return
