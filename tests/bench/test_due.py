"""What a sweep is to measure, in which order, and how it tells of it."""

from __future__ import annotations

import io

import pytest

from helexa.bench.row import CellKey, ModelFacts, Provenance
from helexa.bench.scenarios.build import by_name, scenarios
from helexa.bench.settings import ScenarioSettings
from helexa.bench.sweep.due import due
from helexa.bench.sweep.progress import Bar, Lines
from helexa.bench.targets.base import Survey, Surveyed
from helexa.core.settings import SettingsError


def survey(name: str, *models: str, kind: str = "neuron") -> Survey:
    source = Provenance(name, kind, "http://x", "b1")
    return Survey(source, tuple(Surveyed(ModelFacts(m)) for m in models))


def test_all_cells_get_their_first_sample_before_any_gets_its_second() -> None:
    wanted = [by_name("chat:8"), by_name("chat:16")]
    runs = due([survey("a", "m"), survey("b", "m")], wanted, {}, 3)
    assert [run.sample for run in runs] == [0] * 4 + [1] * 4 + [2] * 4


def test_only_what_is_missing_is_due_and_what_unloads_comes_last() -> None:
    wanted = [by_name("cold"), by_name("chat:8"), by_name("swap")]
    counts = {CellKey("a", "b1", "m", "chat:8"): 1}
    runs = due([survey("a", "m", "n")], wanted, counts, 2)
    first = [(run.key.model, run.key.scenario) for run in runs if run.sample == 0]
    assert first == [("n", "chat:8"), ("m", "cold"), ("n", "cold"), ("m", "swap"), ("n", "swap")]
    assert sum(run.key == CellKey("a", "b1", "m", "chat:8") for run in runs) == 1


def test_loading_is_measured_only_where_it_can_be_commanded() -> None:
    assert due([survey("a", "m", kind="openai")], [by_name("cold")], {}, 1) == []
    assert due([survey("a", "m")], [by_name("swap")], {}, 1) == []


@pytest.mark.parametrize("name", ["chat", "chat:0", "chat:x", "poisson:0", "cool", "tools:3"])
def test_an_unknown_scenario_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError, match=r"Known: tools, structured"):
        by_name(name)


def test_a_scenario_without_its_size_is_answered_with_one_that_has_it() -> None:
    with pytest.raises(SettingsError, match=r"no scenario 'chat'; did you mean 'chat:<n>'\?"):
        by_name("chat")


def test_every_sweep_counts_its_own_runs() -> None:
    out = io.StringIO()
    shown, (one,) = Lines(out), due([survey("a", "m")], [by_name("tools")], {}, 1)
    for runs in (2, 1):
        shown.begin(runs)
        for _ in range(runs):
            shown.done(one, None)
        shown.end()
    assert [line.split()[0] for line in out.getvalue().splitlines()] == [
        "2", "[1/2]", "[2/2]", "1", "[1/1]",
    ]  # fmt: skip


def test_a_terminal_shows_one_bar_however_many_sweeps_there_were() -> None:
    pytest.importorskip("rich")
    out = io.StringIO()
    bar = Bar(out)
    for _ in range(3):
        out.truncate(0)
        bar.begin(7)
        bar.end()
    assert out.getvalue().count("0/7") == 1


def test_every_scenario_of_the_settings_is_made_once() -> None:
    made = scenarios(
        ScenarioSettings(
            prompt_sizes=(8, 8), prefix_sizes=(4,), concurrency_levels=(2,), arrival_rates=(0.5,),
            names=("tools", "chat:8", "cold"),
        )
    )  # fmt: skip
    names = [scenario.name for scenario in made]
    assert names == ["chat:8", "prefix:4", "concurrency:2", "poisson:0.5", "tools", "cold"]
