"""What is kept of a request in bytes tells the same as its timeline would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange.desk import Placed, Times, Tried
from helexa.cortex.exchange.exchange import Exchange
from helexa.cortex.pages import Page, is_ordinary
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.rank import Candidate
from helexa.cortex.routing.work import Work
from helexa.cortex.timeline import Timeline
from helexa.cortex.timelines import Timelines, timeline_of

OURS = "req_" + "abcdefghijkmnpqrabcdefghij"
WHO = Principal("account", "key")
PLACES = tuple(Candidate(f"n{at}", 8, Work()) for at in range(16))

seconds = st.floats(0, 1e9)
counts = st.integers(0, 2**32 - 1)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    field = PLACES[: draw(st.integers(2, 16))]
    size = len(field)
    standing = st.tuples(*[st.floats(0, 1e4)] * 5)
    standings = draw(st.lists(standing, min_size=size, max_size=size))
    won, cached, now = draw(st.integers(0, size - 1)), draw(seconds), draw(st.floats(1e4, 1e9))
    return Choice(field[won], cached, field, standings, [(won, cached)], draw(seconds), now)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    choice = draw(st.none() | choices())
    node = "n0" if choice is None else choice.winner.node
    return exchange(
        shown_id=draw(st.just(OURS) | st.text(max_size=128)),
        streams=draw(st.none() | st.booleans()),
        placed=Placed(node, cold=draw(st.booleans()), choice=choice),
        times=draw(st.builds(Times, *[seconds] * 10)),
        usage=draw(st.builds(Usage, *[counts] * 4)),
        timings=draw(st.none() | st.builds(Timings, counts, counts, seconds, counts, seconds)),
        moved=draw(st.booleans()),
        reply=SimpleNamespace(status=200, bytes_sent=draw(st.integers(0, 2**40))),
    )


def exchange(**more: Any) -> Exchange:
    fields: dict[str, Any] = {
        "request_id": OURS,
        "shown_id": OURS,
        "route": SimpleNamespace(name="chat"),
        "model": "m",
        "principal": WHO,
        "streams": None,
        "placed": Placed("n0"),
        "outcome": "complete",
        "error": None,
        "tried": None,
        "cut": None,
        "times": Times(1.0),
        "usage": Usage(1, 2),
        "timings": None,
        "moved": False,
        "delivered": 1,
        "reply": SimpleNamespace(status=200, bytes_sent=7),
    }
    return cast("Exchange", SimpleNamespace(**{**fields, **more}))


def told(timeline: Timeline) -> object:
    """Everything that anybody can ask a timeline for."""
    times = [getattr(timeline.times, name) for name in Times.__slots__]
    return timeline.render(admin=True), times, timeline.usage, timeline.timings


@settings(max_examples=40)
@given(ended=st.lists(exchanges(), min_size=1, max_size=4), at=seconds)
def test_ordinary_requests_are_kept_in_bytes_that_tell_the_same(
    ended: list[Exchange], at: float
) -> None:
    assert all(map(is_ordinary, ended))
    page = Page(ended, at)
    whole = [timeline_of(one, at) for one in ended]
    assert [told(one) for one in page.newest()] == [told(one) for one in reversed(whole)]
    named = sum(len(one.shown_id.encode()) for one in whole)
    assert len(page._rows) <= (330 + 55 * 16) * len(ended) + named


def test_what_bytes_cannot_tell_is_kept_whole() -> None:
    place = PLACES[0]
    shut = Choice(place, 0, [place], [(0.0,) * 5], [], 0, 0, (("n9", "breaker open, 1.0 s"),))
    for more in (
        {"outcome": "cancelled"},
        {"usage": None},
        {"placed": None},
        {"tried": [Tried("n1", "service_unavailable", 3.0)]},
        {"cut": "budget"},
        {"placed": Placed("n0", choice=shut)},
    ):
        assert not is_ordinary(exchange(**more))


def test_counts_that_no_node_should_tell_are_kept_whole_with_what_ended_beside_them() -> None:
    kept = Timelines(lambda: 5.0)
    kept.record([exchange(usage=Usage(2**64, 1)), exchange()])
    assert [one.usage for one in kept.latest(9)] == [Usage(1, 2), Usage(2**64, 1)]


def test_pages_are_dropped_when_all_of_them_are_more_than_are_kept() -> None:
    kept = Timelines(lambda: 5.0, kept=5)
    for page in range(4):
        kept.record([exchange(shown_id=f"{page}-{number}") for number in range(3)])
    shown = [f"{page}-{number}" for page in (3, 2) for number in (2, 1, 0)]
    assert len(kept) == 6
    assert [one.shown_id for one in kept.latest(9)] == shown
    assert [one.shown_id for one in kept.latest(4)] == shown[:4]


def test_the_latest_of_a_name_is_found_within_a_page_and_only_by_its_own_key() -> None:
    kept = Timelines(lambda: 5.0)
    other = Principal("account", "other")
    kept.record(
        [
            exchange(shown_id="same", model="first"),
            exchange(shown_id="same", model="second"),
            exchange(shown_id="same", model="its", principal=other),
            exchange(shown_id="not the same"),
        ]
    )
    found = [kept.find("same", who) for who in (WHO, other, None)]
    assert [one.model for one in found if one is not None] == ["second", "its", "its"]
    assert kept.find("sam", None) is None
    assert [one.model for one in kept.latest(9, model="its")] == ["its"]
    assert [one.model for one in kept.latest(9, key="other")] == ["its"]


def test_both_kinds_are_found_and_listed_together() -> None:
    kept = Timelines(lambda: 5.0, kept=3)
    for number in range(4):
        own = f"req_{number:026d}"
        cut = "budget" if number % 2 else None
        kept.record([exchange(request_id=own, shown_id=f"mine-{number}", cut=cut)])
    assert [type(one) for one in kept._kept] == [Timeline, Page, Timeline]
    assert [one.shown_id for one in kept.latest(9)] == ["mine-3", "mine-2", "mine-1"]
    for number in (1, 2, 3):
        for name in (f"req_{number:026d}", f"mine-{number}"):
            found = kept.find(name, WHO)
            assert found is not None
            assert found.shown_id == f"mine-{number}"
    assert kept.find("mine-0", None) is None
    assert kept.find("mine-2", Principal("account", "other")) is None
    assert kept.latest(9, key="other") == []


def record(attempt: int, prompt: int, output: int) -> RequestRecord:
    return RequestRecord(OURS, attempt, "gw", 1, "m", "cancelled", prompt=prompt, output=output)


@pytest.mark.parametrize("late", [False, True])
def test_what_was_billed_and_what_was_discarded_are_told_apart_whenever_they_come(
    late: bool,
) -> None:
    kept = Timelines(lambda: 5.0)
    tried = [Tried(node, "upstream_connection_error", 3.0) for node in ("n1", "n2")]
    ended = exchange(outcome="cancelled", usage=None, tried=tried, delivered=3)
    if late:
        kept.record([ended])
    kept.discarded(record(1, 7, 100))
    kept.heard(record(3, 7, 2))
    kept.discarded(record(2, 7, 30))
    if not late:
        kept.record([ended])
    (timeline,) = kept.latest(5)
    body: dict[str, Any] = timeline.render()
    assert (body["usage"]["total"], body["discarded"]["total"]) == (9, 144)
