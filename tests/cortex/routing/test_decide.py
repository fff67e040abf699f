"""Serve, wait, wake or refuse: cold is not missing, and silence is not absence."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from helexa.core.errors import (
    Forbidden,
    HelexaError,
    InsufficientVram,
    InvalidRequestBody,
    ModelNotFound,
    ModelRecovering,
    ServiceUnavailable,
    UnsupportedOperation,
)
from helexa.core.fleet import (
    Activation,
    Device,
    DeviceReading,
    Discovery,
    ModelEntry,
    ModelLoad,
    Servable,
)
from helexa.core.outlook import Candidate, Outlook
from helexa.cortex.catalogue import listing
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.profiles import Profile, Profiles
from helexa.cortex.routing.decide import Refuse, Serve, Wait, Wake, decide

CATALOGUE = Profiles((Profile("m", "llamacpp", quant="Q4_0"),))


def node(name: str, status: str | None = None, *, free: int = 1000, **more: Any) -> NodeSnapshot:
    facts = Discovery(devices=[Device(0, vram_total_mb=9000)], harnesses=["llamacpp"])
    entry_fields = {k: more.pop(k) for k in ("servable", "progress", "eta_s") if k in more}
    models = {}
    if status is not None:
        entry = ModelEntry("m", status, **entry_fields)
        models["m"] = ModelState(entry, ModelLoad("m"))
    base = NodeSnapshot(
        name,
        "",
        answered=True,
        discovery=facts,
        devices=(DeviceReading(0, vram_free_mb=free),),
        models=models,
    )
    return replace(base, **more)


def fleet(*nodes: NodeSnapshot) -> FleetSnapshot:
    return FleetSnapshot(nodes, 1)


def refused(
    profiles: Profiles, *nodes: NodeSnapshot, avoid: frozenset[str] = frozenset()
) -> HelexaError:
    decision = decide("m", profiles, fleet(*nodes), avoid)
    assert isinstance(decision, Refuse), decision
    return decision.error


def test_nodes_that_have_it_loaded_and_servable_serve() -> None:
    good = node("one", "loaded")
    others = (
        node("two", "loading"),
        node("three", "loaded", draining=True),
        node("four", "loaded", strikes=3),
        node("five", "loaded", servable=Servable(ok=False)),
    )
    assert decide("m", Profiles(), fleet(*others, good)) == Serve((good,))


def test_busy_or_silent_for_a_moment_is_still_servable() -> None:
    assert isinstance(decide("m", Profiles(), fleet(node("one", "loaded", strikes=2))), Serve)


def test_what_is_loading_is_waited_for_with_its_progress() -> None:
    nodes = fleet(
        node("one", "loading", progress=0.2, eta_s=9.0), node("two", "reloading", progress=0.6)
    )
    assert decide("m", Profiles(), nodes) == Wait(("one", "two"), 0.6, None)
    boot = node("one", activation=Activation("pre_warming", ["m"]))
    assert decide("m", Profiles(), fleet(boot)) == Wait(("one",))


def test_a_sleeping_model_is_woken_where_most_memory_is_free_and_it_has_not_failed() -> None:
    nodes = fleet(
        node("failed", "failed", free=9000),
        node("full", free=10),
        node("free", free=5000),
        node("draining", free=8000, draining=True),
        node("gone", free=8000, strikes=3),
    )
    assert decide("m", CATALOGUE, nodes) == Wake(CATALOGUE.models[0], ("free", "full", "failed"))
    assert decide("m", CATALOGUE, nodes, frozenset({"free"})) == Wake(
        CATALOGUE.models[0], ("full", "failed")
    )


def test_an_unloading_model_of_the_catalogue_is_woken_not_missing() -> None:
    assert isinstance(decide("m", CATALOGUE, fleet(node("one", "unloading"))), Wake)


def test_the_built_in_model_is_woken_without_a_catalogue() -> None:
    decision = decide("helexa/spark", Profiles(), fleet(node("one")))
    assert isinstance(decision, Wake)
    assert decision.nodes == ("one",)


def test_a_recovering_model_is_refused_for_a_moment_and_not_loaded_twice() -> None:
    error = refused(CATALOGUE, node("one", "recovering"), node("two"))
    assert type(error) is ModelRecovering
    assert error.retry_after_s


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("insufficient_vram", InsufficientVram), ("engine_without_gpu", ServiceUnavailable)],
)
def test_a_loaded_model_that_cannot_serve_says_why(reason: str, kind: type[HelexaError]) -> None:
    servable = Servable(ok=False, reason=reason, detail="because of this")
    error = refused(CATALOGUE, node("one", "loaded", servable=servable))
    assert type(error) is kind
    assert "because of this" in error.message


@pytest.mark.parametrize(
    "nodes",
    [
        (node("one", "loaded", draining=True),),
        (node("one", "loaded", strikes=3),),
        (node("one", "unloading"),),
        (node("one", "failed"),),
    ],
)
def test_a_model_that_somebody_has_is_never_not_found(nodes: tuple[NodeSnapshot, ...]) -> None:
    assert type(refused(Profiles(), *nodes)) is ServiceUnavailable


def test_a_known_model_that_nobody_can_run_is_unavailable_not_missing() -> None:
    assert type(refused(CATALOGUE, node("one", strikes=3))) is ServiceUnavailable
    assert type(refused(CATALOGUE)) is ServiceUnavailable


@pytest.mark.parametrize(
    ("wants", "words"),
    [
        ({"pinned_on": ("attic", "cellar")}, "pinned on attic, cellar, and this fleet has no such"),
        ({"harness": "vllm"}, "no node that it may run on has the engine 'vllm'"),
        ({"min_devices": 2}, "it wants 2 devices;"),
        ({"min_device_vram_mb": 24_000, "pinned_on": ("one",)}, "1 device of 24000 MiB"),
    ],
)
def test_what_the_catalogue_demands_and_no_node_has_is_said(
    wants: dict[str, Any], words: str
) -> None:
    assert words in refused(Profiles((Profile("m", **wants),)), node("one")).message


def test_an_unknown_model_is_missing_only_once_every_node_has_been_heard_or_given_up() -> None:
    silent = NodeSnapshot("two", "")
    assert type(refused(Profiles(), node("one"), silent)) is ServiceUnavailable
    assert type(refused(Profiles(), node("one"), replace(silent, strikes=2))) is ServiceUnavailable
    assert type(refused(Profiles(), node("one"), replace(silent, strikes=3))) is ModelNotFound
    assert type(refused(Profiles(), node("one"))) is ModelNotFound


def test_a_model_that_may_be_at_a_node_nobody_has_heard_yet_is_waited_for() -> None:
    begun = NodeSnapshot("two", "")
    pinned = Profiles((Profile("m", pinned_on=("two",)),))
    assert decide("m", CATALOGUE, fleet(begun)) == Wait(("two",))
    assert decide("m", pinned, fleet(node("one"), begun)) == Wait(("two",))
    assert isinstance(decide("m", CATALOGUE, fleet(node("one", "loaded"), begun)), Serve)
    assert isinstance(decide("m", CATALOGUE, fleet(node("one"), begun)), Wake)
    said = {"m": Outlook("m", False, reason="model_not_found", detail="not here")}
    assert decide("m", CATALOGUE, fleet(node("one", outlooks=said), begun)) == Wait(("two",))
    # What would not come of it, or is known to be nowhere else, is said at once.
    assert type(refused(CATALOGUE, begun, avoid=frozenset({"two"}))) is ServiceUnavailable
    assert type(refused(CATALOGUE, replace(begun, strikes=3))) is ServiceUnavailable
    assert type(refused(CATALOGUE, node("one", "recovering"), begun)) is ModelRecovering
    other = Profiles((Profile("m", pinned_on=("one",), harness="vllm"),))
    assert type(refused(other, node("one"), begun)) is ServiceUnavailable


def test_nodes_to_avoid_do_not_count() -> None:
    avoid = frozenset({"one"})
    assert type(refused(Profiles(), node("one", "loaded"), avoid=avoid)) is ServiceUnavailable
    assert isinstance(
        decide("m", CATALOGUE, fleet(node("one", "loaded"), node("two")), avoid), Wake
    )


def test_a_model_that_no_node_can_run_is_refused_in_their_own_words() -> None:
    said = Outlook("m", False, reason="unsupported_format", detail="take a GGUF of it",
                   candidates=[Candidate("llamacpp", False)])  # fmt: skip
    absent = Outlook("m", False, reason="model_not_found", detail="not here")
    error = refused(
        CATALOGUE, node("one", outlooks={"m": said}), node("two", outlooks={"m": absent})
    )
    assert isinstance(error, UnsupportedOperation)
    assert error.message == (
        "No node can run 'm'. one: take a GGUF of it; two: not here. "
        "GET /v1/models lists what can be served."
    )
    decision = decide("m", CATALOGUE, fleet(node("one", outlooks={"m": said}), node("two")))
    assert isinstance(decision, Wake)
    assert decision.nodes == ("two",)


def test_a_file_that_no_load_makes_usable_is_no_reason_to_ask_again() -> None:
    said = {"m": Outlook("m", False, reason="unsupported_operation", detail="it is no GGUF file")}
    tried = node("one", "failed", outlooks=said)
    error = refused(CATALOGUE, tried, node("two", outlooks=said))
    assert type(error) is UnsupportedOperation
    assert "one: it is no GGUF file; two: it is no GGUF file" in error.message
    assert not list(listing(CATALOGUE, fleet(tried), 0))
    assert type(refused(CATALOGUE, tried, node("two", strikes=3))) is ServiceUnavailable
    assert type(refused(CATALOGUE, replace(tried, outlooks={}), avoid=frozenset({"one"}))) is (
        ServiceUnavailable
    )


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("model_not_found", ModelNotFound),
        ("invalid_request_body", InvalidRequestBody),
        ("forbidden", Forbidden),
        ("unsupported_operation", UnsupportedOperation),
        ("insufficient_vram", UnsupportedOperation),
    ],
)
def test_where_all_nodes_agree_the_refusal_says_what_they_say(
    reason: str, kind: type[HelexaError]
) -> None:
    said = {"m": Outlook("m", False, reason=reason, detail="take Q8_0.")}
    error = refused(CATALOGUE, node("one", outlooks=said), node("two", outlooks=said))
    assert type(error) is kind
    assert "one: take Q8_0; two: take Q8_0. GET" in error.message
    for away in (node("two", strikes=3), node("two", draining=True)):
        error = refused(CATALOGUE, node("one", outlooks=said), away)
        assert type(error) is ServiceUnavailable
        assert error.retry_after_s
