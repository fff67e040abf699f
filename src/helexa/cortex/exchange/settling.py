"""Settling with the node's word: final counts, extensions of grants, acknowledgements.

The gateway settles at once what it has seen the whole of. For everything else (a client that
left, a stream that broke) the node's record is the truth: it comes with ``request_end`` on the
node's event stream, or is fetched from ``GET /requests``. An attempt of which nothing was relayed
costs nothing whatever its record says; that is waited for only to be counted. Every record that
has been settled is acknowledged, in batches, so that the node can forget it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import msgspec

from helexa.core.errors import HelexaError, TryLater
from helexa.core.fleet import RequestRecord
from helexa.core.usage import Usage
from helexa.cortex.exchange.mail import Mail, NodeMail
from helexa.cortex.fleet.client import NodeApi
from helexa.cortex.fleet.events import GrantLow
from helexa.cortex.ledger.base import Ledger, RequestKey, Settled, Settlement
from helexa.wire.bodies import UNREADABLE

FINAL = frozenset(("complete", "cut", "cancelled", "failed", "node_lost"))
ASK_AGAIN_S = 1.0
"""After a ledger that could not say whether there is more for a request."""

_TIMEOUT_S = 3.0
_MOST_GIVEN_UP = 65_536

Booked = Callable[[Settled], object]
Counted = Callable[[RequestRecord, bool], object]
Late = Callable[[str, int, int], object]


class _Waiting(NamedTuple):
    """An ended attempt whose record is still out; forgotten with the lease of its grant.

    ``billed``: what the record says is what it costs. Otherwise it has been settled at nothing.
    """

    node: str
    until: float
    billed: bool


class Settler:
    """Owner of the requests whose final count is still out.

    Args:
        api: A node's management routes by name; None for a node that is gone.
        nodes: Names of the nodes that there are.
        booked: Told of every settlement that was made here (for metrics).
        heard: Told of the records that such settlements go by, and of their nodes.
        counted: Told of every record once, and whether it is what was billed.
        late: Told, by node, how many records came late since it was last told, and of how many
            tokens that had not been settled.
        gateway: Our name; records of other gateways are none of our business.
        epoch: Our life; records of an earlier one are settled by recovery, not here.
    """

    def __init__(
        self,
        ledger: Ledger,
        api: Callable[[str], NodeApi | None],
        nodes: Callable[[], Iterable[str]],
        *,
        booked: Booked,
        heard: Callable[[str, RequestRecord], object],
        counted: Counted,
        late: Late,
        slice_tokens: int,
        lease_s: float,
        gateway: str,
        epoch: int,
    ) -> None:
        self._ledger = ledger
        self._api = api
        self._present = nodes
        self._booked = booked
        self._heard = heard
        self._counted = counted
        self._tell_late = late
        self._slice = slice_tokens
        self._lease_s = lease_s
        self._gateway = gateway
        self._epoch = epoch
        self._mail = Mail(api, ledger.written, nodes)
        self._running: set[RequestKey] = set()
        self._waiting: dict[RequestKey, _Waiting] = {}
        self._missed: set[RequestKey] = set()
        self._early: dict[RequestKey, RequestRecord] = {}
        self._given_up: dict[RequestKey, int] = {}
        self._late: dict[str, list[int]] = {}
        self._extending: set[asyncio.Future[int | None]] = set()
        self.drift = 0
        """Σ booked − Σ the nodes' records, over the attempts that are billed and of which both
        are known."""

    @property
    def waiting(self) -> int:
        """Ended requests whose node has not told yet what they cost."""
        return sum(waiting.billed for waiting in self._waiting.values())

    def begin(self, request_id: str, attempt: int) -> None:
        """A request is sent to a node: its grant lives as long as it runs."""
        self._running.add((request_id, attempt))

    def settle(
        self, node: str, request_id: str, attempt: int, usage: Usage, model: str = ""
    ) -> Settled | None:
        """Book a request whose usage was seen, and acknowledge its record once that is durable."""
        key = (request_id, attempt)
        self._running.discard(key)
        mail = self._mail.to(node)
        settled = self._ledger.settle(
            Settlement(
                request_id,
                attempt,
                usage.prompt,
                usage.completion,
                usage.cached,
                usage.reasoning,
                False,  # by position: with names it takes twice as long
                node,
                model,
            )
        )
        mail.acks[key] = None if settled is None else settled.prompt + settled.completion
        if self._early:
            record = self._early.pop(key, None)
            if record is not None:
                self._compare(mail, key, record)
        return settled

    def withdraw(self, request_id: str, attempt: int) -> None:
        """Granted, but never begun by a node: it has cost nothing, and nobody knows of it."""
        self._running.discard((request_id, attempt))
        self._early.pop((request_id, attempt), None)
        self._ledger.settle(Settlement(request_id, attempt, 0, 0))

    def settle_later(self, node: str, request_id: str, attempt: int) -> None:
        """The request has ended and only the node knows what it cost."""
        self._ledger.renew(request_id, attempt)  # what is left of it may be a moment
        self._await_record(node, (request_id, attempt), billed=True)

    def discard(self, node: str, request_id: str, attempt: int, model: str = "") -> None:
        """Nothing of it was relayed: it costs nothing, whatever its node has computed for it.

        Its room is free at once. What its record says is neither drift nor lost: it is counted as
        discarded when it comes, and then acknowledged.
        """
        self._ledger.discard(Settlement(request_id, attempt, 0, 0, node=node, model=model))
        self._await_record(node, (request_id, attempt), billed=False)

    def _await_record(self, node: str, key: RequestKey, *, billed: bool) -> None:
        self._running.discard(key)
        until = asyncio.get_running_loop().time() + self._lease_s
        self._waiting[key] = _Waiting(node, until, billed)
        record = self._early.pop(key, None)
        if record is not None:
            self.on_request_end(node, record)

    def on_request_end(self, node: str, record: RequestRecord) -> None:
        """A final record from a node's event stream or its table."""
        if record.epoch != self._epoch or record.gateway != self._gateway:
            return
        key = (record.request_id, record.attempt)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self._take(node, key, record, billed=waiting.billed)
        elif key in self._running:
            self._early[key] = record  # its usage will be seen in a moment
        else:
            self._count_late(node, key, record)
            self._compare(self._mail.to(node), key, record)

    def _take(self, node: str, key: RequestKey, record: RequestRecord, *, billed: bool) -> None:
        """A record that was waited for: it is what is billed, or what is thrown away."""
        if not billed:
            self._counted(record, False)
            self._mail.to(node).acks[key] = None
            return
        usage = Usage(record.prompt, record.output, record.cached, record.reasoning)
        settled = self.settle(node, record.request_id, record.attempt, usage, record.model)
        if settled is None:
            self._count_late(node, key, record)
            return
        self._heard(node, record)
        self._booked(settled)
        self._compare(self._mail.to(node), key, record)

    def _count_late(self, node: str, key: RequestKey, record: RequestRecord) -> None:
        """What a record says beyond what its request was given up at, once."""
        settled = self._given_up.pop(key, None)
        tokens = 0 if settled is None else record.prompt + record.output - settled
        if tokens > 0:
            found = self._late.setdefault(node, [0, 0])
            found[0] += 1
            found[1] += tokens

    def _give_up_at(self, key: RequestKey, tokens: int) -> None:
        """Settled without its record, which may come yet; the oldest of very many is forgotten."""
        self._given_up[key] = tokens
        if len(self._given_up) > _MOST_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]

    def _compare(self, mail: NodeMail, key: RequestKey, record: RequestRecord) -> None:
        """Hold what was booked against the node's own record, once; then it may be forgotten."""
        booked = mail.acks.get(key)
        mail.acks[key] = None
        if booked is not None:
            self.drift += booked - record.prompt - record.output
            self._counted(record, True)

    def on_grant_low(self, node: str, event: GrantLow) -> None:
        """A node asks for more: raise the grant as far as there is room, and tell it."""
        # A prompt of many more tokens than were estimated lacks more than one slice.
        wanted = max(event.granted, event.used + event.needed) + self._slice
        answer = self._ledger.extend(event.request_id, event.attempt, event.used, wanted)
        if isinstance(answer, Awaitable):
            task = asyncio.ensure_future(answer)
            self._extending.add(task)
            task.add_done_callback(self._extending.discard)
            task.add_done_callback(lambda t: self._extended_later(node, event, t))
        else:
            self._extended(node, event, answer)

    def _extended_later(
        self, node: str, event: GrantLow, answer: asyncio.Future[int | None]
    ) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if not isinstance(error, TryLater):
            self._extended(node, event, answer.result())
        elif (event.request_id, event.attempt) in self._running:
            # A node that is told nothing waits for a word; that there is no more would be one.
            loop = asyncio.get_running_loop()
            loop.call_later(ASK_AGAIN_S, self.on_grant_low, node, event)

    def _extended(self, node: str, event: GrantLow, granted: int | None) -> None:
        # Where there is no more it is told what it has: else it could only wait.
        self._mail.grant(node, event.request_id, max(granted or 0, event.granted))

    # ── what is overdue ─────────────────────────────────────────────────────────────────────

    async def run(self, every_s: float = 0.5) -> None:
        """Acknowledge in batches and look after what is overdue, until cancelled."""
        overdue: set[RequestKey] = set()
        while True:
            await asyncio.sleep(every_s)
            self._mail.send()
            # What waited a whole round has no event stream to come by: ask for it.
            late = overdue & self._waiting.keys()
            nodes = self._who_knows(late)
            await asyncio.gather(*(self._ask(node, late) for node in nodes))
            self._missed &= self._waiting.keys()
            overdue = set(self._waiting)
            self._expire()
            self._tell_of_late()

    def _tell_of_late(self) -> None:
        came, self._late = self._late, {}
        for node, (records, tokens) in came.items():
            self._tell_late(node, records, tokens)

    def _who_knows(self, late: set[RequestKey]) -> set[str]:
        """The nodes to ask; all of them where one is gone, which may have another name now."""
        nodes = {self._waiting[key].node for key in late}
        if any(self._api(node) is None for node in nodes):
            nodes |= set(self._present())
        return nodes

    def _expire(self) -> None:
        for key, settled in self._ledger.expire(self._running).items():
            self._booked(settled)
            self._give_up_at(key, settled.total)
        now = asyncio.get_running_loop().time()
        for key in [key for key, waiting in self._waiting.items() if waiting.until <= now]:
            self._no_record(key)

    def _no_record(self, key: RequestKey) -> None:
        """Wait no longer. What is not billed may be forgotten unseen, should it turn up yet."""
        waiting = self._waiting.pop(key)
        if not waiting.billed:
            self._mail.to(waiting.node).acks[key] = None

    async def _ask(self, node: str, late: set[RequestKey]) -> None:
        """Take final records from a node's table, and give up what it has never begun.

        A request that was dropped before it had a seat leaves no record. One that is missing
        twice, half a second apart, is not merely on its way.
        """
        api = self._api(node)
        if api is None:
            return
        with contextlib.suppress(HelexaError, *UNREADABLE):
            answer = await api.get("/requests", _TIMEOUT_S)
            if answer.status == 200:
                records = msgspec.json.decode(answer.body, type=list[RequestRecord])
                for record in records:
                    if record.state in FINAL:
                        self.on_request_end(node, record)
                self._give_up(node, late, {(r.request_id, r.attempt) for r in records})

    def _give_up(self, node: str, late: set[RequestKey], known: set[RequestKey]) -> None:
        for key in late - known:
            waiting = self._waiting.get(key)
            if waiting is None or waiting.node != node:
                continue
            if key in self._missed:
                self._no_record(key)
                if waiting.billed:
                    self.withdraw(*key)
                    self._give_up_at(key, 0)
            self._missed ^= {key}
