"""The interface of every ledger, and the types that cross it.

::

    grant ──▶ open ──extend*──▶ open ─┬─settle───▶ settled
                                      ├─discard──▶ discarded
                                      └─expire───▶ expired

A grant is a hold of so many tokens that a node enforces. It is sized by an estimate and extended
while tokens flow, so nothing rests on the estimate. Each grant ends once; what comes after that
is ignored. Always: settled + open ≤ cap, and settled ≤ granted.

A request is named by ``(request_id, attempt)``. The id must be the gateway's own: one that a
client chose could come twice at once, and two requests would share one grant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable
from typing import Literal, Protocol, TypeAlias

import msgspec

from helexa.core.principal import Principal, Window

RequestKey: TypeAlias = tuple[str, int]
"""Request id and attempt."""

IMAGE_TOKENS = 1500
"""Allowance for an image whose prompt length only the engine knows."""

BYTES_PER_TOKEN = 3
"""Few tokenizers need more than one token for three bytes of JSON."""


class Grant(msgspec.Struct, frozen=True):
    """A hold on a key's budget.

    Args:
        tokens: How far the node may go, prompt and output together; None for an uncapped key.
    """

    request_id: str
    attempt: int
    account_id: str
    key_id: str
    tokens: int | None


class Settlement(msgspec.Struct, frozen=True):
    """What a request has cost, by the node's record (tokens).

    Args:
        estimated: No final record; the last count that was heard of.
        node, model: Where and what it ran on, for usage.
    """

    request_id: str
    attempt: int
    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False
    node: str = ""
    model: str = ""


class Settled(msgspec.Struct, frozen=True):
    """What was booked: ``prompt`` + ``completion`` = ``total`` ≤ the grant.

    ``overrun`` is what was reported beyond the grant; it is not billed, and must read 0.
    """

    account_id: str
    key_id: str
    prompt: int
    completion: int
    overrun: int = 0

    @property
    def total(self) -> int:
        """Tokens billed."""
        return self.prompt + self.completion


class WindowUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One cap as it stands (tokens); ``resets_at`` (epoch seconds) when spend begins to leave.

    ``scope``: the key's own, or shared by all keys of its account.
    """

    hard_cap: int
    spent_tokens: int
    open_tokens: int
    available_tokens: int
    window: Window
    resets_at: float | None = None
    scope: Literal["key", "account"] = "key"


class KeyUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """``GET /v1/usage``: the tightest cap at the top, all of them in ``windows``.

    For an uncapped key ``hard_cap`` and ``available_tokens`` are None and the rest counts since
    the gateway's ledger began.
    """

    account_id: str
    key_id: str
    hard_cap: int | None
    spent_tokens: int
    open_tokens: int
    available_tokens: int | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    window: Window | None = None
    resets_at: float | None = None
    windows: tuple[WindowUsage, ...] = ()


class TokenRoom(msgspec.Struct, frozen=True, gc=False):
    """The tightest cap in short (tokens), as ``x-ratelimit-…-tokens`` tells it.

    Args:
        reset_s: Seconds until nothing of it is used any more; None for a balance.
    """

    limit: int
    remaining: int
    reset_s: float | None


class KeyHolds(msgspec.Struct, frozen=True):
    """A key's open grants: how many, and their tokens (an uncapped grant counts 0)."""

    account_id: str
    key_id: str
    grants: int
    tokens: int


class LedgerSnapshot(msgspec.Struct, frozen=True):
    """``GET /admin/grants``: every open grant, and the holds per key."""

    grants: tuple[Grant, ...]
    keys: tuple[KeyHolds, ...]


class Ledger(Protocol):
    """Where budgets are kept.

    ``grant`` and ``extend`` may answer at once or with something to await: a durable store may
    have to write first, and a key whose room is only *held* by its own open grants is made to
    wait a moment. Callers await what is not a value.

    Attributes:
        estimated: Tokens settled without a node's final count, since the gateway started.
        overrun: Tokens that nodes reported beyond grants; not billed, and must stay 0.
        before_short: Called before anybody is told that there is no room: whoever puts off the
            settling of what has ended does it then.
    """

    estimated: int
    overrun: int
    before_short: Callable[[], object]

    def grant(
        self, principal: Principal, request_id: str, attempt: int, estimate: int
    ) -> Grant | Awaitable[Grant]:
        """Hold ``min(available, estimate)`` tokens; asked again, the same open grant.

        Raises:
            InsufficientQuota: A hard balance is spent.
            RateLimitExceeded: A rolling window is spent (``retry_after_s``, ``resets_at``), or
                all room stayed held by open grants.
            ServiceUnavailable: The ledger cannot be asked, or has too much to write.
        """

    def extend(
        self, request_id: str, attempt: int, used: int, to: int
    ) -> int | Awaitable[int | None] | None:
        """Raise an open grant towards ``to`` tokens as far as there is room.

        Args:
            used: What the node has counted so far; kept for ``expire``.
            to: The wanted absolute grant; never lowers it.

        Returns:
            The absolute grant now; None when it is uncapped or not open.

        Raises:
            ServiceUnavailable: Nobody can say just now whether there is more.
        """

    def settle(self, settlement: Settlement) -> Settled | None:
        """Book the cost and close the grant; None when it is not open (any more)."""

    def discard(self, settlement: Settlement) -> None:
        """Close the grant of an attempt of which nothing was relayed: it has cost nothing.

        Whoever recovers what we leave would bill what its node's record says. So that it is
        worth nothing is written down, and until it is nobody else gets its room.
        """

    def renew(self, request_id: str, attempt: int) -> None:
        """A lease begins anew: the request has ended, and its node is yet to say what it cost."""

    def expire(self, live: Container[RequestKey]) -> dict[RequestKey, Settled]:
        """Close grants whose lease ran out at the last count heard of, and say which.

        Args:
            live: Requests known to be running; their leases are renewed instead.
        """

    async def written(self) -> None:
        """Wait until everything settled so far will survive us; only then may a node forget it.

        Raises:
            ServiceUnavailable: It never will: another gateway keeps our life by now.
        """

    def tight(self, principal: Principal) -> bool:
        """Whether what a request leaves behind matters at once: somebody waits for it, or the
        cap's end is near. Otherwise settling may wait a moment."""

    def check_room(self, principal: Principal, tokens: int) -> None:
        """Refuse what would not fit even if nothing were held by open grants.

        Raises:
            InsufficientQuota: A balance has fewer tokens left; asking again is of no use.
            RateLimitExceeded: A rolling window has; with the time when it makes room.
        """

    async def learn(self, principals: Iterable[Principal]) -> None:
        """Have the store tell what keys have spent before; what it does not say in a few seconds
        stays unknown. ``usage`` is as true as what was learnt."""

    def bind(self, principals: Iterable[Principal]) -> None:
        """These keys have other caps by now; what is open counts against them."""

    def usage(self, principal: Principal) -> KeyUsage:
        """What a key has spent and may still spend."""

    def room(self, principal: Principal) -> TokenRoom | None:
        """What the tightest cap leaves, as far as learnt; None for an uncapped key. Cheap."""

    def holds(self) -> tuple[KeyHolds, ...]:
        """The holds per key, for metrics."""

    def snapshot(self) -> LedgerSnapshot:
        """Everything open, for operators."""


def estimate(
    body_bytes: int, images: int = 0, *, slice_tokens: int = 512, output_cap: int | None = None
) -> int:
    """Tokens of the first grant: the prompt by its bytes, the images, one slice of output.

    Args:
        body_bytes: Length of the request's JSON, images left out.
        images: How many images it carries.
        slice_tokens: Output held at a time.
        output_cap: The request's own limit on output, if it has one.
    """
    output = slice_tokens
    if output_cap is not None and output_cap < output:
        output = max(0, output_cap)
    tokens = -(-body_bytes // BYTES_PER_TOKEN) + images * IMAGE_TOKENS + output
    return tokens if tokens > 0 else 1
