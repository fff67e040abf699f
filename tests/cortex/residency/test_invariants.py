"""Whatever happens in whatever order: what the scheduler never does, and that nobody is forgotten.

The rig asserts at every effect: one thing at a time per node, one load per model, no load that
cannot fit, no victim that is busy, too young, more important, or that has not served a waiter.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.cortex.residency.rig import UNLOAD_S, Model, World

from helexa.cortex.residency.world import Rules

MODELS = ("a", "b", "c", "d")
NODES = {"n": 100, "m": 70}
GAP_S = 1.0


class Residency(RuleBasedStateMachine):
    """Arrivals, leavers, endings, time, nodes that come and go, and effects in any order."""

    world: World

    @initialize(
        sizes=st.tuples(*[st.integers(20, 110)] * 4),
        priorities=st.tuples(*[st.sampled_from((100, 100, 50, 1000))] * 4),
        loads=st.tuples(*[st.sampled_from((1.0, 5.0, 20.0))] * 4),
        known=st.booleans(),
        policy=st.sampled_from(("keep", "cancel")),
        strategy=st.sampled_from(("lru", "priority")),
        ttl=st.sampled_from((0.0, 30.0)),
    )
    def begin(
        self,
        sizes: tuple[int, ...],
        priorities: tuple[int, ...],
        loads: tuple[float, ...],
        *,
        known: bool,
        policy: Literal["keep", "cancel"],
        strategy: Literal["lru", "priority"],
        ttl: float,
    ) -> None:
        rules = Rules(strategy, 10.0, 600.0, ttl, policy)
        facts = zip(MODELS, sizes, priorities, loads, strict=True)
        models = {name: Model(size, priority, load) for name, size, priority, load in facts}
        self.world = World(rules, dict(NODES), models, known)

    @rule(model=st.sampled_from(MODELS), count=st.integers(1, 3))
    def arrive(self, model: str, count: int) -> None:
        for _ in range(count):
            self.world.arrive(model)
        self.world.look()

    @rule(model=st.sampled_from(MODELS))
    def leave(self, model: str) -> None:
        self.world.leave(model)
        self.world.look()

    @rule(model=st.sampled_from(MODELS))
    def finish(self, model: str) -> None:
        self.world.finish(model)
        self.world.look()

    @rule(seconds=st.sampled_from((0.01, 1.0, 7.0, 40.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(which=st.integers(0, 5))
    def an_effect_ends(self, which: int) -> None:
        pending = self.world.pending
        if pending:
            self.world.complete(pending[which % len(pending)])
            self.world.look()

    @rule()
    def a_node_goes(self) -> None:
        world = self.world
        world.down.add("m")
        world.pending = [p for p in world.pending if p.node != "m"]
        for at in [at for at in world.places if at[0] == "m"]:
            del world.places[at]
        world.look()

    @rule()
    def it_comes_back(self) -> None:
        self.world.down.discard("m")
        self.world.look()

    @invariant()
    def memory_is_never_given_twice(self) -> None:
        if hasattr(self, "world"):
            assert all(self.world.free(node) >= 0 for node in NODES)

    @invariant()
    def whoever_is_about_to_go_goes_for_somebody(self) -> None:
        if not hasattr(self, "world"):
            return
        wanted = {model for model, waiters in self.world.waiting.items() if waiters}
        for node, work in self.world.scheduler.works().items():
            if work.phase == "clearing":
                assert work.model in wanted, (node, work)

    def teardown(self) -> None:
        """Nobody new comes, what runs ends: then everybody is served or refused in time."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.down.clear()
        world.look()
        for model in MODELS:
            while world.finish(model):
                pass
        longest = max(model.load_s for model in world.models.values())
        a_turn = world.rules.turn(longest) + GAP_S + 2 * (UNLOAD_S + longest)
        for _ in range(int(len(MODELS) * 2 * a_turn / GAP_S) + 1):
            if not any(world.waiting.values()):
                break
            world.pass_time(GAP_S)
            for model in MODELS:
                while world.finish(model):
                    pass
        assert not any(world.waiting.values()), world.waiting


TestResidency = Residency.TestCase
TestResidency.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
