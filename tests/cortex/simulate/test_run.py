"""A simulation decides with the gateway's code and lives through what a fleet lives through."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cortex.routing.test_placer import NOBODY, placing

from helexa.core.settings import SettingsError
from helexa.cortex.residency.world import Rules
from helexa.cortex.routing import rank
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.rank import Field, choose
from helexa.cortex.simulate.fleet import FleetSpec, ModelSpec, NodeSpec, read
from helexa.cortex.simulate.policies import Blind, Homes, Oracle, Policy, Routed
from helexa.cortex.simulate.report import summary
from helexa.cortex.simulate.run import Clock, Result, Simulation
from helexa.cortex.simulate.trace import Asked, customers

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]


def nodes_of(result: Result) -> set[str]:
    return {run.place.node for run in result.runs if run.place is not None}


@pytest.mark.anyio
async def test_simulated_and_real_runs_share_the_decision(
    fake_node: Starter, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(field: Field, ask: Ask, now: float, avoid: AbstractSet[str] = NOBODY) -> Choice:
        choice = choose(field, ask, now, avoid)
        assert choice is not None
        choice.winner = max(field.candidates, key=lambda c: c.node)
        return choice

    def simulated() -> set[str]:
        return nodes_of(Simulation(FleetSpec(), Routed).run(customers(20.0, 3.0)))

    async with (
        fake_node(model("m")) as one,
        fake_node(model("m")) as two,
        placing(one, two) as placer,
    ):

        def real() -> set[str]:
            found = [placer.now("m", NOBODY, Ask(seed=seed)) for seed in range(40)]
            return {placed.node for placed in found if placed is not None}

        assert (len(simulated()), real()) == (8, {"n0", "n1"})
        monkeypatch.setattr(rank, "choose", last)
        assert (simulated(), real()) == ({"node-7"}, {"n1"})


def test_routing_keeps_prefixes_apart_and_nearly_as_fast_as_an_oracle() -> None:
    """The bars of benchmarks/routing.py with one seed and a shorter trace."""
    trace = list(customers(110.0, 12.0, seed=1))
    policies: dict[str, Callable[[Clock], Policy]] = {
        "routed": Routed,
        "oracle": lambda _: Oracle(),
        "homes": lambda _: Homes(),
        "turns": lambda _: Blind(),
    }
    found = {
        name: summary(Simulation(FleetSpec(), made).run(trace), after=15.0)
        for name, made in policies.items()
    }
    ours = found["routed"]
    assert ours.hits >= 0.95
    assert ours.first_p90 <= 1.3 * found["oracle"].first_p90
    assert ours.first_p90 <= 0.2 * found["turns"].first_p90
    assert ours.spread <= 1.2
    assert found["homes"].hits >= 0.95


def test_a_fleet_that_is_nearly_full_keeps_finding_its_prefixes() -> None:
    """Prompts that were pushed out once are no reason to take them round all nodes."""
    trace = customers(134.0, 45.0, seed=0)
    found = summary(Simulation(FleetSpec(), Routed).run(trace), after=15.0)
    assert found.hits >= 0.98
    assert found.first_p90 <= 2.0


def test_every_request_is_served_once_and_in_time_order() -> None:
    result = Simulation(FleetSpec(), Routed).run(customers(60.0, 5.0, seed=4))
    for run in result.runs:
        assert run.asked.at < run.first_at < run.ended_at
        assert run.ended_at - run.first_at == pytest.approx(4.0)


FEW = FleetSpec(
    nodes=(NodeSpec("n", count=2, memory_mb=20_000),),
    models=tuple(ModelSpec(f"m{i}", memory_mb=16_000, load_s=10.0) for i in range(3)),
    residency=Rules(min_residency_s=5.0),
)


def asks(*times_and_models: tuple[float, str]) -> list[Asked]:
    return [Asked(at, model, (("p", 100),), 50) for at, model in times_and_models]


def test_a_cold_model_is_loaded_once_for_everyone_who_waits() -> None:
    result = Simulation(FEW, Routed).run(asks(*[(at / 10, "m0") for at in range(8)]))
    assert len(result.loads) == 1
    assert all(run.cold and run.first_at >= 10.0 for run in result.runs)


def test_a_model_that_does_not_fit_beside_the_others_takes_an_idle_ones_place() -> None:
    result = Simulation(FEW, Routed).run(asks((0.0, "m0"), (0.1, "m1"), (100.0, "m2")))
    assert [model for _, _, model in result.loads] == ["m0", "m1", "m2"]
    assert len(result.evictions) == 1
    found = summary(result)
    assert (found.cold, found.loads, found.evictions, found.refused) == (3, 3, 1, 0)


def test_two_models_that_alternate_on_one_node_do_not_thrash() -> None:
    spec = FleetSpec(
        nodes=(NodeSpec("n", memory_mb=20_000),),
        models=FEW.models,
        residency=Rules(min_residency_s=30.0),
    )
    trace = asks(*[(at / 2, f"m{at % 2}") for at in range(1200)])
    result = Simulation(spec, Routed).run(trace)
    assert not summary(result).refused
    assert len(result.loads) <= 2 + 600 / 30


def test_what_can_never_be_served_is_refused() -> None:
    spec = FleetSpec(models=(ModelSpec("model"), ModelSpec("huge", memory_mb=10**6)))
    result = Simulation(spec, Routed).run(
        [
            Asked(0.0, "unheard-of", (("p", 10),)),
            Asked(0.0, "huge", (("p", 10),)),
            Asked(0.0, "model", (("p", 10**6),)),
            Asked(0.0, "model", (("p", 10),)),
        ]
    )
    assert [run.refused for run in result.runs] == [True, True, True, False]


def test_a_fleet_file_is_read_and_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[nodes]]\nname = "a"\ncount = 2\nloaded = ["m"]\n[[models]]\nid = "m"\n'
        "[residency]\nmin_residency_s = 10.0\n"
    )
    assert [node.name for node in read(file).each()] == ["a-0", "a-1"]
    for text, words in (
        ("[[node]]\n", "node"),
        ('[[nodes]]\nname = "a"\n[[nodes]]\nname = "a"\n', "one name"),
        ('[[nodes]]\nloaded = ["x"]\n', "no .*models"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=words):
            read(file)
