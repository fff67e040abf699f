"""A model of a ledger and its nodes, run against both stores: grants, extensions, settlements,
discarded attempts, duplicates, crashes without a close, recoveries, tokens that are given back,
transactions that fail or whose answer is lost, and clocks that jump either way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from helexa.core.errors import InsufficientQuota, RateLimitExceeded, ServiceUnavailable
from helexa.core.fleet import RequestRecord
from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger import blocks, lives, outbox
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.database import Database, LedgerUnavailable
from helexa.cortex.ledger.durable import Durable
from helexa.cortex.ledger.estate import Estate
from helexa.cortex.ledger.store import Store
from helexa.cortex.ledger.verify import verify
from helexa.cortex.ledger.window import BUCKETS, bucket_of

if TYPE_CHECKING:
    from tests.postgres import Server

T = TypeVar("T")
LEASE_S = 1e6  # nothing expires by itself: the model decides
WINDOWS = st.one_of(
    st.just(Window()), st.builds(Window, st.just("rolling"), st.sampled_from([7, 60, 3600]))
)
CAPS = st.lists(st.builds(Cap, st.integers(0, 900), WINDOWS), min_size=1, max_size=2)

# What is drawn depends on nothing that happened: how much a store has to give is a matter of time.
WHICH = st.integers(0, 11)
PART = st.one_of(st.just(100), st.integers(0, 100))


@dataclass
class Record:
    """What a node has written down about one request; it outlives every gateway."""

    epoch: int
    key: str
    granted: int
    used: int = 0
    final: bool = False
    discarded: bool = False

    def use(self, part: int) -> None:
        """So many hundredths of what is left."""
        self.used += (self.granted - self.used) * part // 100


class LedgerMachine(RuleBasedStateMachine):
    """Nodes' records are the truth; the ledger must agree with them whatever happens to it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.url = url
        self.now = 1_800_000_000.0
        self.numbers = count(1)
        self.records: dict[str, Record] = {}
        self.billed: dict[str, int] = {}
        self.epoch = 0
        self.store: Store | None = None
        self.failing = 0
        self.unheard = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def do(self, call: Callable[[], Any]) -> Any:
        """Call on the loop, and wait for what it gives if that is to be awaited."""

        async def run() -> Any:
            found = call()
            return await found if isinstance(found, Awaitable) else found

        return self.run(run())

    @initialize(own=CAPS, shared=st.one_of(st.just([]), CAPS))
    def start(self, own: list[Cap], shared: list[Cap]) -> None:
        self.who = [
            Principal("acme", name, caps=tuple(own), account_caps=tuple(shared))
            for name in ("one", "two")
        ]
        self.run(self._open())

    async def _open(self) -> None:
        self.epoch += 1
        store = self.store = Store(self.url, self.loop)
        self.failing, transaction = 0, store._db.transaction

        @contextmanager
        def failing() -> Iterator[None]:
            fails, self.failing = self.failing > 0, max(0, self.failing - 1)
            with transaction():
                yield
                if fails and not self.unheard:
                    raise LedgerUnavailable("the disk is full")
            if fails:
                raise LedgerUnavailable("the connection is gone")

        store._db.transaction = failing  # type: ignore[method-assign]
        life = store.at_once(lambda db: lives.begin(db, "g", self.epoch, LEASE_S))
        backing = Durable(store, life, lease_s=LEASE_S, now=lambda: self.now, log=get_logger())
        self.estate = Estate(store, life, lease_s=LEASE_S, now=lambda: self.now)
        self.book = Book(lambda: self.now, lease_s=LEASE_S, hold_wait_s=0.0, backing=backing)

    # ── what happens ────────────────────────────────────────────────────────────────────────

    @rule(estimate=st.integers(1, 400), which=st.integers(0, 1))
    def ask(self, estimate: int, which: int) -> None:
        name, who = f"r{next(self.numbers)}", self.who[which]
        try:
            grant = self.do(lambda: self.book.grant(who, name, 1, estimate))
        except (InsufficientQuota, RateLimitExceeded, ServiceUnavailable):
            return
        assert isinstance(grant, Grant)
        assert grant.tokens is not None
        assert 1 <= grant.tokens <= estimate
        self.records[name] = Record(self.epoch, who.key_id, grant.tokens)

    @rule(which=WHICH, part=PART, more=st.integers(0, 300))
    def extend(self, which: int, part: int, more: int) -> None:
        name = self._one(which)
        if name is None:
            return
        record = self.records[name]
        record.use(part)
        wanted = record.granted + more
        granted = self.do(lambda: self.book.extend(name, 1, record.used, wanted))
        assert isinstance(granted, int)
        assert record.granted <= granted <= record.granted + more
        record.granted = granted

    @rule(which=WHICH, part=PART)
    def settle(self, which: int, part: int) -> None:
        name = self._one(which)
        if name is None:
            return
        record = self.records[name]
        record.use(part)
        record.final = True
        last = Settlement(name, 1, record.used, 0, node="n")
        settled = self.do(lambda: self.book.settle(last))
        assert settled is not None
        assert settled.total == record.used
        self.billed[name] = record.used
        assert self.do(lambda: self.book.settle(last)) is None

    @rule(which=WHICH, part=PART)
    def discard(self, which: int, part: int) -> None:
        name = self._one(which)
        if name is None:
            return
        record = self.records[name]
        record.use(part)
        record.final = record.discarded = True
        self.do(lambda: self.book.discard(Settlement(name, 1, 0, 0, node="n")))
        self.billed[name] = 0

    @rule()
    def batches_are_written_and_nodes_forget(self) -> None:
        self.run(self.book.written())
        for name in [n for n, r in self.records.items() if r.final and r.epoch == self.epoch]:
            del self.records[name]

    @rule()
    def what_is_free_is_given_back(self) -> None:
        for scope in self.book.scopes.values():
            if scope.free > 0 and scope.leasing is None:
                self.do(partial(self.book._blocks._return, scope, scope.free))

    @rule(number=st.integers(1, 3), unheard=st.booleans())
    def transactions_fail(self, number: int, unheard: bool) -> None:
        self.failing, self.unheard = number, unheard

    @rule(seconds=st.floats(-30, 100))
    def the_clock_jumps(self, seconds: float) -> None:
        self.now += seconds

    @rule(buckets=st.integers(56, 62))
    def about_a_window_passes(self, buckets: int) -> None:
        windows = [cap.window.seconds or 0 for who in self.who for cap in who.caps]
        self.now += min(windows, default=0) * buckets / 60

    @rule(part=PART)
    def the_gateway_is_killed_and_starts_again(self, part: int) -> None:
        assert self.store is not None
        for record in self.records.values():  # their clients are gone: the nodes end them
            if not record.final:
                record.use(part)
                record.final = True
        self.run(self.store.close())  # what waits for its batch is lost with the process
        self.run(self._open())

    @rule()
    def nodes_are_read_and_dead_lives_end(self) -> None:
        self.run(self._recover())

    async def _recover(self) -> None:
        self.failing = 0
        self.estate._looked = 0.0
        for life in await self.estate.dead():
            known = {n: r for n, r in self.records.items() if r.epoch == life.epoch}
            rows = [
                RequestRecord(
                    name, 1, "g", life.epoch, "m", "complete", record.granted, record.used,
                    account_id="acme", key_id=record.key,
                )
                for name, record in known.items()
            ]  # fmt: skip
            lines = await self.estate.settle([(life, row, "n") for row in rows])
            for (name, record), line in zip(known.items(), lines, strict=True):
                # What was discarded costs nothing, unless nobody had come to write that down.
                if line is not None or not record.discarded:
                    self.billed[name] = record.used
                del self.records[name]
            again = await self.estate.settle([(life, row, "n") for row in rows])
            assert again == [None] * len(rows)  # read twice, booked once
            assert await self.estate.end(life, away=False) == 0
        self.book.refresh()

    # ── what always holds ───────────────────────────────────────────────────────────────────

    @invariant()
    def settled_plus_open_never_exceeds_a_cap(self) -> None:
        if self.store is None:
            return
        for who in self.who:
            for window in self.do(partial(self.book.usage, who)).windows:
                assert window.spent_tokens + window.open_tokens <= window.hard_cap
        self.run(self.store.read(self._look))

    def _look(self, db: Database) -> None:
        with db.snapshot():
            held: dict[Any, Any] = dict(
                db.execute("SELECT scope, CAST(SUM(tokens) AS BIGINT) FROM blocks GROUP BY scope")
            )
            spent: dict[Any, Any] = dict(db.execute("SELECT scope, spent FROM scopes"))
            buckets = db.execute("SELECT scope, seconds, bucket, tokens FROM buckets")
        at = int(self.now * 1000)
        scopes = {f"key:{who.key_id}": who.caps for who in self.who}
        scopes["account:acme"] = self.who[0].account_caps
        for scope, caps in scopes.items():
            for cap in caps:
                used = spent.get(scope, 0)
                if cap.window.kind == "rolling":
                    seconds = cap.window.seconds or 0
                    first = bucket_of(at, seconds) - BUCKETS
                    used = sum(
                        tokens
                        for name, width, bucket, tokens in buckets
                        if (name, width) == (scope, seconds) and bucket >= first
                    )
                assert used <= cap.tokens
                if self.now >= 1_800_000_000.0 and cap.window.kind == "balance":
                    assert used + held.get(scope, 0) <= cap.tokens

    def teardown(self) -> None:
        if self.store is None:
            self.loop.close()
            return
        self._end_all()
        self.run(self._recover())
        self.run(self.book.written())
        proof, rows, _ = self.run(self.store.read(_everything))
        assert proof.ok, proof.checks
        assert rows == {name: tokens for name, tokens in self.billed.items() if tokens}
        assert proof.open == 0
        for who in self.who:
            self.run(self.book.learn([who]))
            usage = self.do(partial(self.book.usage, who))
            assert all(w.open_tokens == 0 for w in usage.windows)
        self.run(self._every_token_is_found())
        self.run(self.store.close())
        self.loop.close()

    async def _every_token_is_found(self) -> None:
        """No token stays in our blocks that we do not know of."""
        assert self.store is not None
        async with asyncio.timeout(30):
            while True:
                await self.book.learn(self.who)
                await self.book.written()
                _, _, held = await self.store.read(_everything)
                if held == sum(s.free + s.held + s.owed for s in self.book.scopes.values()):
                    return

    def _end_all(self) -> None:
        for name, record in self.records.items():
            if record.epoch == self.epoch and not record.final:
                record.final = True
                last = Settlement(name, 1, record.used, 0)
                settled = self.do(partial(self.book.settle, last))
                assert settled is not None
                self.billed[name] = record.used

    def _one(self, which: int) -> str | None:
        """A request that runs in this life, if there is any."""
        names = sorted(n for n, r in self.records.items() if r.epoch == self.epoch and not r.final)
        return names[which % len(names)] if names else None


def _everything(db: Database) -> tuple[Any, dict[str, int], int]:
    rows: dict[Any, Any] = dict(db.execute("SELECT request_id, prompt + completion FROM requests"))
    held = db.execute("SELECT COALESCE(SUM(tokens), 0) FROM blocks")[0][0]
    return verify(db), {name: int(tokens) for name, tokens in rows.items() if tokens}, int(held)


def check(urls: Callable[[], str], examples: int) -> None:
    run_state_machine_as_test(
        cast(Any, lambda: LedgerMachine(urls())),
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH_S", 0.001)
    monkeypatch.setattr(outbox, "RETRY_S", 0.001)
    monkeypatch.setattr(blocks, "AFTER_FAILURE_S", 0.001)


def test_the_ledger_agrees_with_the_nodes_whatever_happens_sqlite(tmp_path: Path) -> None:
    numbers = count()
    check(lambda: f"sqlite://{tmp_path}/{next(numbers)}.db", 25)


def test_the_ledger_agrees_with_the_nodes_whatever_happens_postgres(
    postgres_server: Server,
) -> None:
    check(postgres_server.database, 8)
