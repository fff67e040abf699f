"""What a cap binds, as a gateway keeps it in memory: a key, or an account above its keys.

::

    ├── spent ──┼── held by open grants ──┼── free ──┼── leasable ──┤ cap
                └───────── our block: durably ours ──┘   others' blocks, and room for more

Grants are taken from ``free`` and give back what they did not use. Free tokens come from the
store in blocks, so what is durably ours is never less than what grants may cost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Cap, Principal
from helexa.cortex.ledger.window import CapState

Kind = Literal["key", "account"]

FIRST_BLOCK: Final = 16_384
"""Tokens asked of the store at once at first; grows with how fast they go."""


class ScopeState(msgspec.Struct, frozen=True):
    """What a store knows of a scope (tokens).

    Args:
        others: In blocks of other lives.
        buckets: Per window of so many seconds: index and tokens, oldest first.
    """

    spent: int = 0
    others: int = 0
    requests: int = 0
    prompt: int = 0
    completion: int = 0
    buckets: Mapping[int, tuple[tuple[int, int], ...]] = {}


class Leased(NamedTuple):
    """A store's answer.

    Args:
        tokens: Gained; None if it was only asked how things stand.
        state: How they stand, if it says.
        block: Our block with what was gained, if it says.
    """

    tokens: int | None
    state: ScopeState | None
    block: int | None = None


@dataclass(slots=True, eq=False)
class Scope:
    """One scope.

    Args:
        requests, prompt, completion: All that is known to be settled.
        stored: As much of it as is in the store.
        exempt: So much of the rest, at most, is in no block: there was no cap when it was granted.
        owed: Spent or given back, but in our block until the store knows.
        block: Tokens to ask for at once.
        low: Ask for more when fewer are free; −1 while there is nothing more.
        wanted: Tokens that waiting requests would like.
        known: The store has told what was spent before.
        unmet: It has not since the caps have changed.
        leasing: Under way to the store, since ``asked_at`` (the loop's time).
        stale: What is under way was asked too early; ask once more.
        used: Something was taken since somebody last looked.
        rebound: Its caps have changed: what is free may be more than they leave.
        short_until: Until then another gateway is short of it (epoch seconds).
        waiters: Requests that found all room held; those of one account wait in one line.
    """

    name: str
    kind: Kind
    caps: list[CapState] = field(default_factory=list)
    free: int = 0
    held: int = 0
    owed: int = 0
    others: int = 0
    exempt: int = 0
    block: int = FIRST_BLOCK
    low: int = -1
    leased_at: float = 0.0
    wanted: int = 0
    known: bool = False
    unmet: bool = False
    leasing: asyncio.Future[None] | None = None
    asked_at: float = 0.0
    stale: bool = False
    used: bool = False
    rebound: bool = False
    short_until: float = 0.0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    requests: int = 0
    prompt: int = 0
    completion: int = 0
    stored: tuple[int, int, int] = (0, 0, 0)

    @property
    def pending(self) -> tuple[int, int, int]:
        """Requests, prompt and completion that are settled here and not yet in the store."""
        requests, prompt, completion = self.stored
        return self.requests - requests, self.prompt - prompt, self.completion - completion

    def bind(self, caps: tuple[Cap, ...]) -> bool:
        """Take over caps, if they have changed; a window that is new has to be learnt from the
        store."""
        if tuple(state.cap for state in self.caps) == caps:
            return False
        if not self.caps:
            self.exempt = sum(self.pending[1:])
        before = {state.seconds: state for state in self.caps}
        self.caps = [CapState(cap, self.kind) for cap in caps]
        for state in self.caps:
            same = before.get(state.seconds)
            if state.seconds and same is None:
                self.known = False
            state.load(self.prompt + self.completion, same.buckets if same is not None else ())
        self.unmet = not self.known
        return True

    def take(self, tokens: int) -> None:
        """Hold free tokens for a grant."""
        self.used = True
        self.free -= tokens
        self.held += tokens

    def end(self, tokens: int | None, billed: int, now: float) -> None:
        """A grant of ``tokens`` has ended and cost ``billed``; None held nothing here."""
        if tokens is None:
            self.exempt += billed
        else:
            self.free += tokens - billed
            self.held -= tokens
            self.owed += billed
            if self.free < 0:
                self._forgive()
        for cap in self.caps:
            cap.book(billed, now)

    def _forgive(self) -> None:
        """A cap came while requests ran that hold more than it leaves: what they cost beyond our
        block is spent, and not taken from what is not there."""
        beyond = -self.free - self.held
        if beyond > 0:
            self.free += beyond
            self.owed -= beyond
            self.exempt += beyond

    def returned(self, tokens: int) -> None:
        """Free tokens are on their way back to the store."""
        self.free -= tokens
        self.owed += tokens
        self.low = min(self.low, self.free)

    def written(self, requests: int, prompt: int, completion: int) -> None:
        """So much more is in the store now."""
        stored = self.stored
        self.stored = (stored[0] + requests, stored[1] + prompt, stored[2] + completion)
        if self.exempt:
            self.exempt = min(self.exempt, sum(self.pending[1:]))

    def short(self, now: float) -> bool:
        """Whether another gateway has just been short of it."""
        return now < self.short_until

    def leasable(self, now: float) -> int:
        """Tokens that could still be added to what is free; below 0 when a cap was lowered."""
        if not self.caps:
            return 0  # they were lifted while its requests run: those have what they have
        held = self.held + self.others + self.free
        return min(cap.limit - cap.spent(now) for cap in self.caps) - held

    def leased(self, found: Leased, now: float) -> None:
        """The store has answered.

        What is in our block and nowhere with us was lent to us in an answer that was lost: it is
        free.
        """
        if found.block is not None:
            lost = found.block - (found.tokens or 0) - self.free - self.held - self.owed
            self.free += max(0, lost)
        if found.tokens is not None:
            self.free += found.tokens
            self.low = min(self.block, found.tokens) // 2 if found.tokens else -1
        state = found.state
        if state is None:
            return
        requests, prompt, completion = self.pending
        for cap in self.caps:
            cap.load(state.spent, state.buckets.get(cap.seconds, ()))
            cap.book(prompt + completion, now)
        self.others = state.others
        self.requests = state.requests + requests
        self.prompt = state.prompt + prompt
        self.completion = state.completion + completion
        self.stored = (state.requests, state.prompt, state.completion)
        self.known, self.unmet = True, False


@dataclass(slots=True, eq=False)
class Account:
    """One key, with the scopes that bind it.

    Args:
        scopes: Those with caps: the key's own, its account's.
        own, shared: The key's scope and its account's, capped or not.
        waiters: Requests that found all room held; keys that share caps share them too.
    """

    principal: Principal
    own: Scope
    shared: Scope
    scopes: tuple[Scope, ...]
    waiters: deque[asyncio.Future[None]]

    def room(self) -> int:
        """Tokens that can be granted without asking the store."""
        scopes = self.scopes
        if len(scopes) == 1:  # as most have it
            return scopes[0].free
        return min(scope.free for scope in scopes)

    def reach(self, now: float) -> int:
        """Tokens that could be granted if the store gave all it has."""
        return min(scope.free + max(0, scope.leasable(now)) for scope in self.scopes)

    def count(self, prompt: int, completion: int) -> None:
        """One more request, which the store does not know yet."""
        own, shared = self.own, self.shared
        own.requests += 1
        own.prompt += prompt
        own.completion += completion
        shared.requests += 1
        shared.prompt += prompt
        shared.completion += completion

    def near_its_end(self) -> bool:
        """Whether a scope has no more to ask for, or somebody is short of it."""
        for scope in self.scopes:  # noqa: SIM110  # a generator costs as much as all of it
            if scope.low < 0 or scope.wanted or scope.short_until:
                return True
        return False

    def caps(self) -> Iterable[CapState]:
        """Every cap that binds."""
        return (cap for scope in self.scopes for cap in scope.caps)

    def refuse_if_spent(self, now: float, tokens: int = 1) -> None:
        """Refuse when a cap is too far spent for ``tokens``; return when room is only held.

        Raises:
            InsufficientQuota, RateLimitExceeded: See ``Ledger.grant``.
        """
        spent = [cap for cap in self.caps() if cap.spent(now) + tokens > cap.limit]
        what = "is spent"
        if tokens > 1:
            what = f"has no room for the {tokens} tokens this request needs"
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

    def whose(self, grants: int) -> str:
        """Who holds all that is left, for a refusal; ``grants`` of the key are open."""
        if any(cap.scope == "account" for cap in self.caps()):
            return "this key's or its account's budget are held by"
        return f"this key's budget are held by its {grants}"
