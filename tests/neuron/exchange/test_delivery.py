"""An answer under way: what a slow reader may hold up, and what not."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helexa.core.errors import ContextLengthExceeded, HelexaError
from helexa.core.fleet import Limit
from helexa.neuron.engines.base import EngineRequest, Meter
from helexa.neuron.exchange.delivery import Delivery
from helexa.neuron.grants import Grant, GrantGate
from helexa.neuron.watchdog import LEAST_S, Watchdog


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds


@dataclass
class Seat:
    """Holds ``cells`` of a pool in which ``free`` are left."""

    cells: int
    free: int
    cost: int = 0

    def charge(self, tokens: int) -> None:
        self.cost += tokens

    def extend_cells(self, cells: int) -> bool:
        if cells > self.free:
            return False
        self.free -= cells
        self.cells += cells
        return True

    def shrink_to(self, cells: int) -> None:
        self.free += self.cells - cells
        self.cells = cells

    def leave(self) -> None:
        self.free += self.cells
        self.cells = 0


@dataclass
class Attempt:
    """Remembers whether the engine is read."""

    paused: list[bool] = field(default_factory=list)
    ended: bool = False
    connected_at: float = 0.0
    stopped: bool = False
    error: HelexaError | None = None

    def stop(self) -> None:
        self.stopped = True

    def pause(self, paused: bool) -> None:
        self.paused.append(paused)


def delivery(seat: Seat, clock: Clock | None = None) -> tuple[Delivery, Attempt]:
    """An answer of at most 500 tokens to a prompt of 100."""
    cleaner: Any = SimpleNamespace(meter=Meter(prompt=100), done=False)
    model: Any = SimpleNamespace(
        pool=None,
        served=SimpleNamespace(max_output=500),
        plan=SimpleNamespace(context=4096),
        watchdog=Watchdog((clock or Clock()).now, 64, lambda: 1000.0),
    )
    desk = SimpleNamespace(wheel=None, loop=None, grants=SimpleNamespace(slice_tokens=64))
    exchange: Any = SimpleNamespace(
        desk=desk, grant=Grant(GrantGate(None)), as_is=True, answer=None, row=None
    )
    found = Delivery(exchange, model, EngineRequest("POST", "/", b"", cleaner), seat)  # type: ignore[arg-type]
    found.attempt = attempt = Attempt()  # type: ignore[assignment]
    return found, attempt


def test_a_slow_reader_holds_up_an_engine_that_has_the_cells_for_the_rest() -> None:
    seat = Seat(cells=132, free=1000)
    answer, attempt = delivery(seat)
    answer.pause(True)
    answer.pause(False)
    assert attempt.paused == [True, False]
    assert seat.cells == 600


def test_an_engine_without_cells_for_the_rest_is_read_on_for_a_slow_reader() -> None:
    seat = Seat(cells=132, free=100)
    answer, attempt = delivery(seat)
    answer.pause(True)
    assert attempt.paused == []
    assert seat.cells == 132


def test_an_engine_that_a_slow_reader_holds_up_is_not_stuck() -> None:
    clock = Clock()
    answer, _ = delivery(Seat(cells=132, free=1000), clock)
    watchdog = answer._model.watchdog
    watchdog.begin(answer)
    answer.pause(True)
    assert not watchdog.expired()  # a look
    clock.seconds += 2 * LEAST_S
    assert not watchdog.expired()
    answer.pause(False)
    assert not watchdog.expired()
    clock.seconds += 2 * LEAST_S
    assert watchdog.expired()


def test_a_stuck_engine_is_not_kept_stuck_by_those_who_give_up() -> None:
    clock = Clock()
    stuck, _ = delivery(Seat(cells=132, free=1000), clock)
    watchdog = stuck._model.watchdog
    watchdog.begin(stuck)
    clock.seconds += LEAST_S / 2
    stuck._free(spoken=False)  # the client has left, and the engine says nothing about it
    watchdog.begin("another client")
    clock.seconds += LEAST_S / 2
    assert watchdog.expired()
    stuck._free(spoken=True)  # it has let go after all
    assert not watchdog.expired()


def test_an_engine_that_is_read_on_for_a_slow_reader_is_watched_on() -> None:
    clock = Clock()
    answer, _ = delivery(Seat(cells=132, free=100), clock)
    watchdog = answer._model.watchdog
    watchdog.begin(answer)
    answer.pause(True)
    clock.seconds += 2 * LEAST_S
    assert watchdog.expired()


def test_how_fast_a_prompt_was_read_is_learned_once_whenever_the_engine_says_it() -> None:
    noted: list[tuple[int, float]] = []
    answer, _ = delivery(Seat(cells=132, free=1000))
    answer._model.note_prefill = lambda *read: noted.append(read)  # type: ignore[method-assign]
    answer._note_prefill()
    meter = answer.stream.cleaner.meter
    meter.prompt_ms, meter.cached = 500.0, 40
    answer._note_prefill()
    answer._note_prefill()
    assert noted == [(60, 0.5)]


def test_cells_that_a_prompt_was_given_for_its_bytes_are_given_back_when_it_is_counted() -> None:
    seat = Seat(cells=2000, free=0)
    found, _ = delivery(seat)
    model, exchange = cast("Any", found._model), cast("Any", found._exchange)
    model.limit, model.slots = Limit(4096, 3596, 500), SimpleNamespace(take=lambda *_: None)
    exchange.cells_to_begin = lambda _model, prompt, choices: prompt + 32 * choices
    found.stream._clear = 900  # what fitted the cells that it had
    assert found._accepted()
    assert (seat.cells, seat.free, found.stream._clear) == (132, 1868, 0)


def test_whoever_asked_is_charged_once_for_what_was_computed_however_little_it_was() -> None:
    seat = Seat(cells=200, free=0)
    found, attempt = delivery(seat)
    attempt.ended = True
    cast("Any", found._model).note_decode = lambda *_: None
    meter = found.stream.cleaner.meter
    meter.prompt_processed, meter.cached, meter.output = 100, 60, 7
    found.stream.settle_whole()
    found.settle()
    assert seat.cost == 100 - 60 + 7
    found.settle()
    assert seat.cost == 100 - 60 + 7


def test_a_prompt_that_turns_out_to_be_too_long_is_let_go_of_before_its_answer_begins() -> None:
    found, attempt = delivery(Seat(cells=200, free=0))
    model = cast("Any", found._model)
    model.limit, model.slots = Limit(100, 99, 1), SimpleNamespace(take=lambda *_: None)
    model.rejected_too_long = 0
    assert not found._accepted()
    assert (attempt.stopped, model.rejected_too_long) == (True, 1)
    cast("Any", found._exchange).times = SimpleNamespace(ended=0.0)
    with pytest.raises(ContextLengthExceeded, match="99 tokens"):
        found.finish()


def test_an_answer_without_cells_ends_at_once_where_nobody_is_leaving_who_could_bring_some() -> (
    None
):
    found, attempt = delivery(Seat(cells=100, free=0))
    model, exchange = cast("Any", found._model), cast("Any", found._exchange)
    model.slots, model.plan.ahead_cells = SimpleNamespace(leaving=0, releases=0), 64
    outcomes: list[str] = []
    cuts: list[tuple[str, ...]] = []
    exchange.reply = SimpleNamespace(ended=False)
    exchange.conclude, exchange.send = outcomes.append, lambda _: None
    cleaner = cast("Any", found.stream.cleaner)
    cleaner.close, cleaner.whole = lambda *why: cuts.append(why), lambda: b""
    found._out_of_cells()
    assert (outcomes, cuts, attempt.stopped) == (["cut"], [("length", "kv_exhausted")], True)


def test_the_seat_of_a_complete_answer_is_paid_and_free_when_its_end_is_sent() -> None:
    seat = Seat(cells=200, free=0)
    found, _ = delivery(seat)
    seen: list[tuple[int, int]] = []
    exchange = cast("Any", found._exchange)
    exchange.conclude = lambda _: None
    exchange.send = lambda _: seen.append((seat.cells, seat.cost))
    meter = found.stream.cleaner.meter
    meter.prompt_processed, meter.cached, meter.output = 100, 60, 7
    found.stream.settle_whole()
    cast("Any", found.stream.cleaner).whole = lambda: b"{}"
    found._deliver("complete", b"")
    assert seen == [(0, 100 - 60 + 7)], "whoever has read it may ask again at once"
