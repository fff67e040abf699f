"""A model of the ledger, run against random grants, extensions, settlements and clock jumps."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.book import Book

WINDOWS = st.one_of(
    st.just(Window()),
    st.builds(Window, st.just("rolling"), st.sampled_from([1, 7, 60, 3600])),
)
CAPS = st.lists(st.builds(Cap, st.integers(0, 500), WINDOWS), min_size=1, max_size=3)


@dataclass
class Row:
    granted: int
    used: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """The model keeps every settlement with its time and compares sums after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e6
        self.ledger = Book(lambda: self.now, lease_s=30)
        self.open: dict[str, Row] = {}
        self.closed: list[tuple[str, int, int]] = []
        self.booked: list[tuple[float, int]] = []
        self.count = 0

    @initialize(caps=CAPS)
    def start(self, caps: list[Cap]) -> None:
        self.caps = caps
        self.who = Principal("a", "k", caps=tuple(caps))

    def spent_exactly(self, cap: Cap) -> int:
        seconds = cap.window.seconds
        return sum(n for at, n in self.booked if seconds is None or self.now - at < seconds)

    @rule(estimate=st.integers(1, 300))
    def ask(self, estimate: int) -> None:
        self.count += 1
        name = f"r{self.count}"
        held = sum(row.granted for row in self.open.values())
        try:
            answer = self.ledger.grant(self.who, name, 1, estimate)
        except InsufficientQuota:
            hard = [cap for cap in self.caps if cap.window.kind == "balance"]
            assert any(self.spent_exactly(cap) >= cap.tokens for cap in hard)
            return
        except RateLimitExceeded as refusal:
            assert refusal.retry_after_s is not None  # noqa: PT017
            assert any(w.spent_tokens >= w.hard_cap for w in self.ledger.usage(self.who).windows)
            return
        if isinstance(answer, Grant):
            assert answer.tokens is not None
            assert 1 <= answer.tokens <= estimate
            self.open[name] = Row(answer.tokens)
        else:
            assert isinstance(answer, Coroutine)
            answer.close()
            assert held > 0

    @rule(data=st.data(), used=st.integers(0, 400), to=st.integers(0, 600))
    def extend(self, data: st.DataObject, used: int, to: int) -> None:
        if not self.open:
            assert self.ledger.extend("nobody", 1, used, to) is None
            return
        name = data.draw(st.sampled_from(sorted(self.open)))
        row = self.open[name]
        granted = self.ledger.extend(name, 1, used, to)
        assert isinstance(granted, int)
        assert row.granted <= granted <= max(to, row.granted)
        row.granted = granted
        row.used = max(row.used, used)

    @rule(data=st.data(), prompt=st.integers(-5, 300), completion=st.integers(-5, 300))
    def settle(self, data: st.DataObject, prompt: int, completion: int) -> None:
        if not self.open:
            return
        name = data.draw(st.sampled_from(sorted(self.open)))
        row = self.open.pop(name)
        settled = self.ledger.settle(Settlement(name, 1, prompt, completion))
        assert settled is not None
        assert settled.total <= row.granted
        assert settled.total == min(row.granted, max(0, prompt) + max(0, completion))
        self.closed.append((name, prompt, completion))
        self.booked.append((self.now, settled.total))

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if not self.open:
            return
        name = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[name]
        self.ledger.discard(Settlement(name, 1, 0, 0))
        self.closed.append((name, 0, 0))

    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        if self.closed:
            name, prompt, completion = data.draw(st.sampled_from(self.closed))
            assert self.ledger.settle(Settlement(name, 1, prompt, completion)) is None

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(buckets=st.integers(56, 62))
    def about_a_window_passes(self, buckets: int) -> None:
        windows = [cap.window.seconds for cap in self.caps if cap.window.seconds is not None]
        self.now += min(windows, default=0) * buckets / 60

    @rule(data=st.data())
    def leases_run_out(self, data: st.DataObject) -> None:
        names = sorted(self.open)
        live = set(data.draw(st.lists(st.sampled_from(names)))) if names else set()
        before = {(g.request_id, g.attempt) for g in self.ledger.snapshot().grants}
        settled = self.ledger.expire({(name, 1) for name in live})
        after = {(g.request_id, g.attempt) for g in self.ledger.snapshot().grants}
        gone = [name for name, _ in before - after]
        assert not live.intersection(gone)
        bills = sorted(min(self.open[n].used, self.open[n].granted) for n in gone)
        assert sorted(s.total for s in settled.values()) == bills
        for name in gone:
            row = self.open.pop(name)
            self.booked.append((self.now, min(row.used, row.granted)))
            self.closed.append((name, 1, 1))

    @invariant()
    def settled_plus_open_never_exceeds_a_cap(self) -> None:
        if not hasattr(self, "who"):
            return
        held = sum(row.granted for row in self.open.values())
        for cap, window in zip(self.caps, self.ledger.usage(self.who).windows, strict=True):
            assert window.open_tokens == held
            assert window.spent_tokens >= self.spent_exactly(cap)
            assert window.spent_tokens + held <= cap.tokens
            if cap.window.kind == "balance":
                assert window.spent_tokens == self.spent_exactly(cap)

    def teardown(self) -> None:
        if hasattr(self, "who"):
            self.now += 31
            self.ledger.expire(())
            assert all(w.open_tokens == 0 for w in self.ledger.usage(self.who).windows)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLedger = LedgerMachine.TestCase
