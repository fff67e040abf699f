"""Different facts about a node and about a model on it: none implies another."""

from __future__ import annotations

from helexa.core.fleet import ModelEntry, ModelLoad, Servable
from helexa.cortex.fleet.snapshot import STRIKES, ModelState, NodeSnapshot


def there(status: str = "loaded", *, running: int = 0, servable: bool = True) -> ModelState:
    entry = ModelEntry("m", status, servable=Servable(servable))
    return ModelState(entry, ModelLoad("m", in_flight=running))


def test_servable_and_busy_are_two_facts() -> None:
    facts = [(s.servable, s.busy) for s in (
        there(), there(running=1), there(servable=False), there(running=1, servable=False)
    )]  # fmt: skip
    assert facts == [(True, False), (True, True), (False, False), (False, True)]


def test_loading_and_recovering_are_neither_missing_nor_ready() -> None:
    states = {s: there(s) for s in ("loading", "reloading", "loaded", "recovering", "failed")}
    assert [s for s, m in states.items() if m.loading] == ["loading", "reloading"]
    assert [s for s, m in states.items() if m.recovering] == ["recovering"]
    assert [s for s, m in states.items() if m.ready] == ["loaded"]


def test_reachable_and_draining_are_two_facts_of_a_node() -> None:
    node = NodeSnapshot("n", "http://n", answered=True, draining=True, strikes=STRIKES - 1)
    assert (node.reachable, node.draining) == (True, True)
    dead = NodeSnapshot("n", "http://n", answered=True, strikes=STRIKES)
    assert (dead.reachable, dead.draining) == (False, False)
