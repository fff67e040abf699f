"""Between a book and its store: batches of what was settled, blocks, and the lease of our life.

::

    settle ────▶ lines ──every 250 ms─▶ batch ─▶ writer ─▶ durable: nodes may forget their records
    give back ─────┘
    lease  ────────────────────────────────────▶ writer ─▶ free tokens

What is not written yet stays in our blocks. So a crash at any moment leaves the store with blocks
that cover whatever the nodes' records will say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from helexa.core.logging import Logger
from helexa.core.principal import Cap
from helexa.core.recurring import Recurring
from helexa.cortex.ledger import leasing, lives, spend
from helexa.cortex.ledger.backing import Neighbours, State
from helexa.cortex.ledger.base import RequestKey, Settlement
from helexa.cortex.ledger.blocks import PATIENCE_S
from helexa.cortex.ledger.condition import Condition
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.leasing import Ask
from helexa.cortex.ledger.outbox import FREED, MOST_UNWRITTEN, Outbox
from helexa.cortex.ledger.scope import Account, Leased, Scope
from helexa.cortex.ledger.store import Store
from helexa.cortex.ledger.window import AHEAD_S

IDLE_S: Final = 1.0
"""Where other gateways want it too, free tokens that nobody took for so long are given back."""

CLEAN_S: Final = 60.0

_WANTED: Final = "wanted"

GRACE_S: Final = 5.0
"""Between the end of a life's lease and its tokens going to others."""


class Durable:
    """Implements ``Backing`` over a store.

    Args:
        life: Ours; see ``lives``.
        lease_s: Renewed every quarter of it.
        now: Epoch seconds by the ledger's clock.
        lost: Called once when another gateway keeps our life by now: this process must go.
        set_clock: Told with every renewal how far the ledger's clock is ahead of the monotonic one.
    """

    def __init__(
        self,
        store: Store,
        life: lives.Life,
        *,
        lease_s: float,
        now: Callable[[], float],
        log: Logger,
        lost: Callable[[], object] = lambda: None,
        set_clock: Callable[[float], object] | None = None,
    ) -> None:
        self.shared = store.shared
        self._store = store
        self.life = life.life
        self._lease_s = lease_s
        self._now = now
        self._log = log
        self._trouble = Recurring(
            log, "ledger: cannot renew our lease", "ledger: our lease is renewed"
        )
        store.mended = lambda what: log.error("ledger: it was gone", what=what)
        self._withheld = Recurring(
            log, "ledger: cannot give out tokens", "ledger: tokens are given out again"
        )
        self._lost = lost
        self._set_clock = set_clock
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(store, self.life, self._now_ms, log, self._fence)
        self._asks: list[tuple[Ask, Callable[[Leased | Exception], None]]] = []
        self._asking = False
        self._at = 0
        self._renewed = time.monotonic()
        self._cleaned = -CLEAN_S  # an earlier life may have had a wrong clock
        self._may_grant_until = self._renewed + lease_s
        self._fenced = False
        self.full = False

    # ── Backing ─────────────────────────────────────────────────────────────────────────────

    def may_grant(self) -> bool:
        """See ``Backing.may_grant``; a ledger of our own is nobody else's, whatever happens."""
        return not self.shared or (not self._fenced and time.monotonic() < self._may_grant_until)

    def condition(self) -> Condition:
        """How the ledger does, now."""
        outbox, now, silent_s = self._outbox, time.monotonic(), self._store.silent_s
        kinds = (outbox.trouble, self._trouble, self._withheld)
        troubles = [trouble for trouble in kinds if trouble.error is not None]
        why, for_s, granting = None, 0.0, self.may_grant()
        if troubles:
            why, for_s = troubles[0].error, now - min(trouble.began for trouble in troubles)
        elif silent_s > PATIENCE_S or not granting:
            why, for_s = f"its database has not answered for {silent_s:.0f} s", silent_s
        return Condition(why is None, why, for_s, outbox.unwritten, granting, self.full)

    def hear(self, neighbours: Neighbours) -> None:
        """See ``Backing.hear``; what was said while nobody listened is made up for by asking."""

        def heard(text: str) -> None:
            life, word, scope = text.split(" ", 2)
            if int(life) == self.life:
                return
            if word == _WANTED:
                neighbours.wanted(scope, int(life))
            elif word == FREED:
                neighbours.freed(scope)

        if self.shared:
            self._store.listen(heard)

    def lease(
        self, scope: Scope, need: int | None, done: Callable[[Leased | Exception], None]
    ) -> None:
        """See ``Backing.lease``."""
        caps = tuple(Cap(c.limit - scope.exempt, c.cap.window) for c in scope.caps)
        # Two caps may have the same window.
        windows = tuple(dict.fromkeys(state.seconds for state in scope.caps if state.seconds))
        block = 0 if scope.short(self._now()) else scope.block
        tell = self.shared or not scope.known
        self._asks.append((Ask(scope.name, caps, need, block, windows, scope.known, tell), done))
        if not self._asking:
            self._asking = True
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        """All that is asked in a round of the loop, or while the last question was answered, is
        one question."""
        asks, self._asks = self._asks, []
        at, life, questions = self._now_ms(), self.life, [ask for ask, _ in asks]

        def work(db: Database) -> tuple[list[Leased], int]:
            found = leasing.lease(db, life, questions, at)
            for ask, answer in zip(questions, found, strict=True):
                if ask.need is not None and answer.tokens is not None and answer.tokens < ask.need:
                    db.notify(f"{life} {_WANTED} {ask.scope}")
            return found, spend.batch_number(db, life)

        def answered(outcome: Any) -> None:
            if not isinstance(outcome, BaseException):
                found, batch = outcome
                outcome = self._as_we_count(found, questions, batch)
            failed = isinstance(outcome, BaseException)
            if failed:
                self._withheld.failed(outcome)
            else:
                self._withheld.succeeded()
            for at, (_, done) in enumerate(asks):
                done(outcome if failed else outcome[at])
            self._asking = bool(self._asks)
            if self._asking:
                self._ask()

        self._store.submit(work, answered)

    def _as_we_count(
        self, found: Sequence[Leased], asks: Sequence[Ask], batch: int
    ) -> Sequence[Leased]:
        """Answers without what we have not heard of: if the store has the batch under way, what
        that pays is owed still, and how scopes stand would count it twice.

        Args:
            batch: The number of the last batch that the store has.
        """
        paid = self._outbox.unheard(batch)
        if paid is None:
            return found
        return [
            Leased(
                answer.tokens,
                None,
                None if answer.block is None else answer.block + paid.get(ask.scope, 0),
            )
            for ask, answer in zip(asks, found, strict=True)
        ]

    def awaited(self) -> AbstractContextManager[None]:
        """See ``Backing.awaited``."""
        return self._store.awaited()

    def give_back(self, scope: Scope) -> None:
        """See ``Backing.give_back``."""
        outbox = self._outbox
        outbox.collecting.returned.add(scope)
        if scope.short(self._now()):
            outbox.collecting.wanted.add(scope.name)
            outbox.at_once()
        else:
            outbox.soon()

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
        """See ``Backing.settled``."""
        outbox, who = self._outbox, account.principal
        pending = outbox.collecting
        pending.accounts.add(account)
        pending.lines += (  # the values of a ``Line``; the time is filled in when it is written
            last.request_id, last.attempt, self.life, state, 0, who.account_id, who.key_id,
            last.node, last.model, granted, prompt + completion, prompt, completion, last.cached,
            last.reasoning, overrun, 1 if last.estimated else 0,
        )  # fmt: skip
        if outbox.armed is None:
            outbox.soon()

    def discarded(
        self,
        account: Account,
        last: Settlement,
        granted: int | None,
        written: Callable[[], object],
    ) -> None:
        """See ``Backing.discarded``."""
        self.settled(account, last, granted, 0, 0, 0, "discarded")
        future = self._outbox.promise(self._outbox.collecting)
        future.add_done_callback(lambda done: None if done.exception() else written())

    def heard(self, key: RequestKey, account: Account, granted: int, used: int) -> None:
        """See ``Backing.heard``."""
        self._outbox.collecting.running[key] = (account, granted, used)
        self._outbox.soon()

    async def written(self) -> None:
        """See ``Backing.written``."""
        await self._outbox.written()

    def _now_ms(self) -> int:
        # A clock that steps back must not put spend into a bucket that leaves sooner.
        at = int(self._now() * 1000)
        if at < self._at - AHEAD_S * 1000:  # it was wrong, and has been set
            self._at, self._cleaned = at, -CLEAN_S
        self._at = max(self._at, at)
        return self._at

    # ── our life ────────────────────────────────────────────────────────────────────────────

    async def run(self, scopes: Callable[[], dict[str, Scope]]) -> None:
        """Renew our lease and give back what is idle, until cancelled."""
        while True:
            await asyncio.sleep(min(IDLE_S, self._lease_s / 4))
            self._store.look_after()
            self.full = self._outbox.unwritten >= MOST_UNWRITTEN
            now = time.monotonic()
            if now - self._renewed >= self._lease_s / 4:
                self._renewed = now
                self._renew(now)
            if now - self._cleaned >= CLEAN_S:
                self._cleaned = now
                self._forget()
            if self.shared:
                self._give_back_idle(scopes())

    def _forget(self) -> None:
        at = self._now_ms()

        def work(db: Database) -> None:
            spend.forget_the_future(db, at)
            spend.forget_old_buckets(db, at)

        self._store.submit(work, _ignore)

    def _renew(self, asked: float) -> None:
        life, lease_s = self.life, self._lease_s

        def work(db: Database) -> tuple[bool, float]:
            return lives.renew(db, life, lease_s), db.now() - time.monotonic()

        def renewed(outcome: Any) -> None:
            if isinstance(outcome, BaseException):
                self._trouble.failed(outcome)
                self._renewed = asked - lease_s  # again at once: others wait to be sure of us
                return
            self._trouble.succeeded()
            ours, ahead = outcome
            if self._set_clock is not None:
                self._set_clock(ahead)
            if ours:
                self._may_grant_until = asked + lease_s
            else:
                self._fence()

        self._store.submit(work, renewed)

    def _give_back_idle(self, scopes: dict[str, Scope]) -> None:
        """Free tokens that nobody took for a round belong to whoever asks next, and so does what
        a busy key has twice over."""
        for scope in scopes.values():
            idle = scope.free if not scope.used else scope.free - 2 * scope.block
            scope.used = False
            if idle > 0 and scope.leasing is None:
                scope.returned(idle)
                self.give_back(scope)

    def _fence(self) -> None:
        if not self._fenced:
            self._fenced = True
            self._log.error("ledger: another gateway has taken over what was ours")
            self._outbox.close()
            self._lost()

    async def close(self, *, clean: bool) -> None:
        """Write what is left.

        Args:
            clean: Nothing is open and every node's word is in: our life has ended. Otherwise our
                next life, or another gateway, reads the nodes' records.
        """
        await self.written()
        if clean and not self._fenced:
            life, at = self.life, self._now_ms()
            await self._store.write(lambda db: lives.end(db, life, life, at, away=False))


def _ignore(outcome: object) -> None:
    """It is done again in a while."""
