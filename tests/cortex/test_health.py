"""Health says what is wrong, and readiness whether another gateway should be asked."""

from __future__ import annotations

import msgspec
from tests.cortex.test_catalogue import entry, node

from helexa.core.fleet import Activation, FailedActivation, Servable
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.cortex.health import health, not_ready
from helexa.cortex.ledger.condition import Condition

WELL = Condition()
ONE = FleetSnapshot((node("one", entry("m")),))


def test_health_tells_dead_nodes_from_models_that_cannot_serve() -> None:
    good = node("one", entry("m"))
    broken = node(
        "two",
        entry("n", servable=Servable(ok=False, reason="insufficient_vram", detail="needs 2 GB")),
        entry("r", "recovering"),
        activation=Activation("ready", failed=[FailedActivation("boot", "no network")]),
    )
    assert health(FleetSnapshot((good,)), WELL)["status"] == "ok"
    assert health(FleetSnapshot(()), WELL)["status"] == "degraded"
    body = health(FleetSnapshot((good, broken)), WELL)
    assert body["status"] == "impaired"
    assert body["nodes"] == {"healthy": 2, "total": 2}
    assert body["unservable"] == [
        {"node": "two", "model": "n", "reason": "insufficient_vram", "detail": "needs 2 GB"},
        {"node": "two", "model": "r", "reason": "recovering", "detail": None},
        {"node": "two", "model": "boot", "reason": "activation_failed", "detail": "no network"},
    ]
    dead = health(FleetSnapshot((good, node("three", strikes=3))), WELL)
    assert dead["status"] == "degraded"
    assert dead["nodes"] == {"healthy": 1, "total": 2}


def test_health_counts_the_nodes_that_take_no_new_work() -> None:
    drained = msgspec.structs.replace(node("two", entry("m")), draining=True)
    body = health(FleetSnapshot((node("one", entry("m")), drained)), WELL)
    assert (body["status"], body["nodes"]) == ("ok", {"healthy": 2, "total": 2, "draining": 1})


def test_health_says_that_the_ledger_cannot_be_written_and_not_to_everybody_why() -> None:
    away = Condition(False, "no route to db.internal", 12.34, 7)
    body = health(ONE, away)
    assert body["status"] == "degraded"
    assert body["ledger"] == {"ok": False, "for_s": 12.3, "unwritten": 7}
    assert health(ONE, WELL)["ledger"] == {"ok": True}


def test_a_gateway_is_ready_while_it_grants_and_a_node_answers() -> None:
    def reasons(fleet: FleetSnapshot, ledger: Condition = WELL, *, capped: bool = True) -> str:
        return ", ".join(not_ready(fleet, ledger, capped=capped))

    assert reasons(ONE) == ""
    assert reasons(ONE, Condition(False, "disk full", 12.3, 7)) == ""  # it goes on with its own
    away = Condition(False, "away", 99.0, 7, granting=False)
    assert "granted nothing" in reasons(ONE, away)
    assert reasons(ONE, away, capped=False) == ""
    full = msgspec.structs.replace(away, full=True)
    assert "no more requests" in reasons(ONE, full, capped=False)
    assert reasons(FleetSnapshot((node("one", strikes=3),))) == "no node answers"
    assert reasons(FleetSnapshot((node("one", answered=False),))) == "no node has answered yet"
    assert reasons(FleetSnapshot()) == "no node is configured"
