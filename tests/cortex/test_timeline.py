"""What is kept about ended requests, for whom, and how much of it."""

from __future__ import annotations

from typing import Any

from helexa.core.principal import ANONYMOUS, Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange.desk import Placed, Times
from helexa.cortex.timeline import Timeline
from helexa.cortex.timelines import Timelines

ACME = Principal("acme", "acme-key")


def timeline(name: str, **more: Any) -> Timeline:
    fields: dict[str, Any] = {
        "request_id": f"req_{name}",
        "shown_id": name,
        "route": "chat",
        "model": "m",
        "stream": True,
        "principal": ACME,
        "placed": Placed("one"),
        "attempts": 1,
        "status": 200,
        "sent": 321,
        "outcome": "complete",
        "error": None,
        "times": Times(10.0, 10.001, 10.003, 10.004, 10.1, 10.104, 10.504, 10.505),
        "usage": Usage(9, 5, 3, 1),
        "timings": Timings(6, 3, 90.0, 5, 400.0),
        "ended_at": 1_000_000.505,
    }
    return Timeline(**{**fields, **more})


def test_it_says_how_much_of_the_prompt_was_reused_and_where_it_first_differed() -> None:
    assert timeline("a").render()["prefix"] == {"reused": 3, "of": 9, "differs_at": 3}
    whole = timeline("a", usage=Usage(9, 5, 8), moved=True).render()["prefix"]
    assert whole == {"reused": 8, "of": 9, "differs_at": None, "first_line": "moved"}


def test_phases_add_up_and_what_did_not_happen_is_left_out() -> None:
    body = timeline("a").render()
    assert body["ms"] == {
        "check": 1.0,
        "queue": 2.0,
        "connect": 1.0,
        "first_byte": 96.0,
        "prefill": 100.0,
        "decode": 400.0,
        "first_token": 104.0,
        "total": 505.0,
    }
    assert (body["node"], body["why"]) == ("one", "the only one that has it")
    assert body["started_at"] == 1_000_000.0
    assert body["usage"] == {
        "prompt": 9,
        "completion": 5,
        "cached": 3,
        "reasoning": 1,
        "total": 14,
    }
    assert "key_id" not in body
    assert timeline("a").render(admin=True)["key_id"] == "acme-key"


def test_a_phase_within_one_turn_of_the_loop_takes_no_time() -> None:
    assert timeline("a", times=Times(10.0, 10.1, 10.2, 10.199)).phases()["connect"] == 0.0


def test_a_cold_start_is_load_and_not_queue() -> None:
    body = timeline("a", placed=Placed("one", cold=True)).render()
    assert isinstance(body["ms"], dict)
    assert body["ms"]["load"] == 2.0
    assert "queue" not in body["ms"]


def test_a_refusal_has_no_node_and_says_its_code() -> None:
    body = timeline(
        "a",
        placed=None,
        usage=None,
        timings=None,
        outcome="refused",
        error=("model_not_found", "No."),
        times=Times(10.0, ended=10.002),
    ).render()
    assert body["error"] == {"code": "model_not_found", "message": "No."}
    assert body["ms"] == {"total": 2.0}
    assert not {"node", "usage", "timings"} & body.keys()


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    kept = Timelines(lambda: 0.0, kept=3)
    for name in "abcde":
        kept.add(timeline(name))
    assert len(kept) == 3
    assert [t.shown_id for t in kept.latest(10)] == ["e", "d", "c"]
    assert [t.shown_id for t in kept.latest(2)] == ["e", "d"]
    assert kept.find("a", None) is None


def test_requests_are_found_by_either_id_and_only_by_their_key() -> None:
    kept = Timelines(lambda: 0.0)
    kept.add(timeline("mine"))
    kept.add(timeline("mine", request_id="req_other", principal=ANONYMOUS))
    found = kept.find("mine", ACME)
    assert found is not None
    assert found.request_id == "req_mine"
    assert kept.find("req_mine", ACME) is found
    assert kept.find("req_mine", ANONYMOUS) is None
    latest = kept.find("mine", None)
    assert latest is not None
    assert latest.request_id == "req_other"


def test_the_latest_can_be_narrowed_to_a_model_or_a_key() -> None:
    kept = Timelines(lambda: 0.0)
    kept.add(timeline("a"))
    kept.add(timeline("b", model="n"))
    kept.add(timeline("c", principal=ANONYMOUS))
    assert [t.shown_id for t in kept.latest(9, model="n")] == ["b"]
    assert [t.shown_id for t in kept.latest(9, key="acme-key")] == ["b", "a"]
