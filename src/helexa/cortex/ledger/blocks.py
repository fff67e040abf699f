"""The blocks a gateway grants from: what it asks of its store, and what it gives back.

::

    store ──lease──▶ free ──take──▶ held by grants ──settle──▶ spent
      ▲                │
      └── give back ───┘  idle; or at once while another gateway is short of it

Where gateways share a ledger the last tokens of a cap may lie in the blocks of several. A gateway
that is short says so; the others give back what is free there at once, and go on doing so for
a moment with what their ending requests leave. So the last token goes to whoever can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

from helexa.core.errors import HelexaError, ServiceUnavailable
from helexa.core.principal import Cap
from helexa.cortex.ledger.backing import Backing
from helexa.cortex.ledger.scope import Account, Kind, Leased, Scope
from helexa.cortex.ledger.window import CapState

ASK_AGAIN_S: Final = 0.05
"""Other gateways say when they give back; what their requests have spent they do not."""

MOST_BLOCK: Final = 1 << 20
BUSY_S: Final = 5.0
"""A block that lasts less is followed by one of twice the size."""

SHORT_S: Final = 1.0
"""So long what is free goes back at once after another gateway was short of it."""

AFTER_FAILURE_S: Final = 2.0
"""So long after a question failed it is asked again, whoever needs the answer."""

PATIENCE_S: Final = 10.0
"""So long the store may take to answer before whoever needs the answer is told to come again."""

_ROUNDS: Final = 3
_OTHERS_S: Final = 0.1
"""How long other gateways may take to give back, before what is there must do."""


class Blocks:
    """The scopes of one gateway and what is free in them; used on its loop only.

    Args:
        now: Epoch seconds.
        backing: None: all room is free at once.
    """

    __slots__ = ("_backing", "_now", "scopes")

    def __init__(self, now: Callable[[], float], backing: Backing | None) -> None:
        self._now = now
        self._backing = backing
        self.scopes: dict[str, Scope] = {}
        if backing is not None:
            backing.hear(self)

    # ── scopes ──────────────────────────────────────────────────────────────────────────────

    def scope(self, kind: Kind, name: str, caps: tuple[Cap, ...]) -> Scope:
        """The scope, with the caps that it has by now."""
        full, backing = f"{kind}:{name}", self._backing
        scope = self.scopes.get(full)
        if scope is None:
            scope = self.scopes[full] = Scope(full, kind, known=backing is None)
            scope.bind(caps)
            if backing is not None:
                self.ask(scope)
        elif scope.bind(caps):
            scope.rebound = True
        if backing is None:
            scope.known, scope.unmet = True, False
        if scope.rebound:
            self.return_surplus(scope)
        return scope

    def take(self, scope: Scope, tokens: int) -> None:
        """Hold free tokens for a grant; more are asked for ahead of their need."""
        scope.used = True
        scope.held += tokens
        scope.free -= tokens
        if scope.free < scope.low:
            self.ask(scope)

    def return_surplus(self, scope: Scope) -> None:
        """Keep no more free than the caps leave; nothing for now where what was spent in a new
        window is yet to be learnt: the answer that tells it finds in our block what was free."""
        if not scope.caps or scope.free <= 0:
            return
        if scope.unmet:
            scope.free = 0
            self.ask(scope)
        else:
            self._return(scope, min(scope.free, max(0, -scope.leasable(self._now()))))

    def make_up(self, scope: Scope) -> None:
        """Have the store lend what open requests hold under a cap that came while they ran."""
        if scope.free < 0 and self._backing is not None:
            self.ask(scope)

    def left(self, scope: Scope) -> None:
        """A grant has ended and left something of which others may be short."""
        if not scope.waiters:
            self._return_for_others(scope)

    # ── more than what is free ──────────────────────────────────────────────────────────────

    def more(self, account: Account, now: float) -> bool:
        """Whether the store may have more than what is free; without one, it is free now."""
        backing = self._backing
        if backing is None:
            for scope in account.scopes:
                scope.free += max(0, scope.leasable(now))
            return False
        unknown = not all(scope.known for scope in account.scopes)
        return (
            unknown
            or backing.shared
            or not backing.may_grant()
            or account.reach(now) > account.room()
        )

    def may_grant(self) -> bool:
        """Whether what is free is ours to grant."""
        return self._backing is None or self._backing.may_grant()

    async def lease(self, account: Account, want: int) -> None:
        """Have the store, and for a moment the other gateways, add to what is free until that is
        ``want``, or there is no more.

        Raises:
            ServiceUnavailable: It cannot just now.
        """
        if self._backing is None:
            self.more(account, self._now())
            return
        for scope in account.scopes:
            scope.wanted += want
        try:
            await self._lease(account, want, self._backing)
        finally:
            for scope in account.scopes:
                scope.wanted -= want

    async def woken(self, account: Account, most_s: float) -> None:
        """Wait for room to be freed, here or, for all we know, elsewhere."""
        if self._backing is not None and self._backing.shared:
            most_s = min(most_s, ASK_AGAIN_S)
        future = asyncio.get_running_loop().create_future()
        account.waiters.append(future)
        try:
            async with asyncio.timeout(most_s):
                await future
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):
                account.waiters.remove(future)

    async def _lease(self, account: Account, want: int, backing: Backing) -> None:
        loop, asked = asyncio.get_running_loop(), 0
        deadline = loop.time() + _OTHERS_S
        while True:
            await self._lease_once(account, want, backing)
            asked += 1
            room = account.room()
            if room >= want:
                return
            if asked < _ROUNDS and account.reach(self._now()) > room:
                continue  # it may have answered a question asked before we came
            left = deadline - loop.time()
            if left <= 0 or not backing.shared or not any(s.others for s in account.scopes):
                return
            await self.woken(account, left)

    async def _lease_once(self, account: Account, want: int, backing: Backing) -> None:
        if not backing.may_grant():
            raise ServiceUnavailable("The gateway has lost touch with its ledger.", retry_after_s=2)
        now = self._now()
        asking = [
            scope
            for scope in account.scopes
            if not scope.known
            or (scope.free < want and (backing.shared or scope.leasable(now) > 0))
        ]
        if not asking:
            return
        answers = [self.ask(scope) for scope in asking]
        since = min(scope.asked_at for scope in asking)
        left = since + PATIENCE_S - asyncio.get_running_loop().time()
        with backing.awaited():
            done, late = await asyncio.wait(answers, timeout=max(0.0, left))
        for answer in done:
            answer.result()
        if late:
            raise ServiceUnavailable(
                f"The gateway's ledger has not answered for {PATIENCE_S:.0f} s.", retry_after_s=2
            )

    # ── the store ───────────────────────────────────────────────────────────────────────────

    def ask(self, scope: Scope) -> asyncio.Future[None]:
        """The question that is under way, or a new one; asked at the end of the loop's round, so
        that all who want something are heard."""
        if scope.leasing is None:
            loop = asyncio.get_running_loop()
            scope.leasing = loop.create_future()
            scope.asked_at = loop.time()
            loop.call_soon(self._send, scope)
        return scope.leasing

    def refresh(self) -> None:
        """Others have given back or spent what is shared: ask how things stand."""
        for scope in self.scopes.values():
            if scope.caps:
                scope.known = False
                scope.stale = scope.leasing is not None  # its answer may be older than the news
                self.ask(scope)

    def _send(self, scope: Scope) -> None:
        assert self._backing is not None  # noqa: S101  # nobody asks without one
        need = None
        ahead = not self._backing.shared and not scope.leased_at  # nobody else wants it
        if ahead or scope.wanted > scope.free or scope.free < max(0, scope.low):
            need = max(0, scope.wanted - scope.free)
        caps = scope.caps
        self._backing.lease(scope, need, lambda found: self._answered(scope, caps, found))

    def _answered(self, scope: Scope, asked: list[CapState], found: Leased | Exception) -> None:
        future, scope.leasing = scope.leasing, None
        now = self._now()
        if isinstance(found, Leased) and scope.caps is not asked:
            # It was asked with other caps: what was gained is ours, but nothing is known of these.
            found = Leased(found.tokens, None, found.block)
            scope.known = False
        if isinstance(found, Leased):
            if found.tokens:
                lasted, scope.leased_at = now - scope.leased_at, now
                if lasted < BUSY_S:
                    scope.block = min(2 * scope.block, MOST_BLOCK)
            scope.leased(found, now)
            if scope.short(now):
                scope.low = -1
            if scope.rebound:
                self.return_surplus(scope)
            if scope.stale:
                scope.stale = scope.known = False
                self.ask(scope)
            ring(scope.waiters, everybody=True)
            if not scope.known and scope.leasing is None:  # it could not say how things stand
                asyncio.get_running_loop().call_later(AFTER_FAILURE_S, self.ask, scope)
        else:
            scope.known = False  # what we know nothing of may have been lent to us all the same
            asyncio.get_running_loop().call_later(AFTER_FAILURE_S, self.ask, scope)
        if future is None or future.done():
            return
        if isinstance(found, Leased):
            future.set_result(None)
            return
        future.set_exception(
            found
            if isinstance(found, HelexaError)
            else ServiceUnavailable(
                "The gateway's ledger cannot be used just now.", retry_after_s=2
            )
        )
        future.exception()  # seen, also when nobody waits

    # ── the other gateways ──────────────────────────────────────────────────────────────────

    def wanted(self, scope: str, by: int) -> None:
        """See ``Neighbours.wanted``."""
        found, backing = self.scopes.get(scope), self._backing
        if found is None or not found.caps or backing is None:
            return
        found.short_until = self._now() + SHORT_S
        found.low = -1
        # Two that are short of each other's tokens must not swap them for ever: the older keeps.
        if found.wanted <= found.free or by < backing.life:
            self._return_for_others(found)

    def freed(self, scope: str) -> None:
        """See ``Neighbours.freed``."""
        found = self.scopes.get(scope)
        if found is not None:
            ring(found.waiters, everybody=True)

    def _return_for_others(self, scope: Scope) -> None:
        if not scope.short(self._now()):
            scope.short_until = 0.0
        elif scope.free > 0:
            self._return(scope, scope.free)

    def _return(self, scope: Scope, tokens: int) -> None:
        scope.returned(tokens)
        if tokens and self._backing is not None:
            self._backing.give_back(scope)


def ring(waiters: deque[asyncio.Future[None]], *, everybody: bool) -> None:
    """Wake the first who waits, or all of them."""
    for _ in range(len(waiters)):
        future = waiters.popleft()
        if not future.done():
            future.set_result(None)
            if not everybody:
                return
