from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from helexa.bench.scenarios.build import scenarios
from helexa.bench.settings import load_settings as load_bench
from helexa.bench.store.reader import Reader
from helexa.cli.app import helexa
from helexa.core.settings import load
from helexa.cortex.profiles import load_profiles
from helexa.cortex.settings import load_settings
from helexa.neuron.settings import NeuronSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "config"


def test_the_gateway_example_loads_without_a_warning() -> None:
    loaded = load_settings(EXAMPLES / "cortex.toml", {}, {})
    assert loaded.warnings == ()
    assert [node.name for node in loaded.value.neurons] == ["attic", "cellar"]
    assert loaded.value.models_config == EXAMPLES / "models.toml"


def test_the_catalogue_example_loads_and_its_pins_are_nodes_of_the_gateway_example() -> None:
    profiles = load_profiles(EXAMPLES / "models.toml")
    nodes = {node.name for node in load_settings(EXAMPLES / "cortex.toml", {}, {}).value.neurons}
    for profile in profiles.models:
        assert set(profile.pinned_on) <= nodes


def test_the_node_example_loads_without_a_warning() -> None:
    loaded = load(
        NeuronSettings,
        prefix="NEURON_",
        path=EXAMPLES / "neuron.toml",
        default_path=Path("/nonexistent"),
        flags={},
        environ={},
    )
    assert loaded.warnings == ()
    assert [model.model_id for model in loaded.value.default_models] == ["helexa/spark"]


def test_the_bench_example_parses() -> None:
    table = tomllib.loads((EXAMPLES / "helexa-bench.toml").read_text())
    assert [target["kind"] for target in table["targets"]] == ["neuron", "openai"]


def test_the_bench_example_loads_and_its_scenarios_exist() -> None:
    loaded = load_bench(EXAMPLES / "helexa-bench.toml", {}, {})
    assert loaded.warnings == ()
    assert "chat:4096" in [scenario.name for scenario in scenarios(loaded.value.scenarios)]


def test_the_example_database_is_readable_and_names_no_host() -> None:
    cells = Reader(EXAMPLES.parent / "bench.sqlite").latest_cells()
    assert {cell.target for cell in cells} == {"node", "gateway", "llama.cpp"}
    assert {cell.host for cell in cells} == {""}


@pytest.mark.parametrize(
    ("unit", "command"),
    [("cortex", ["cortex"]), ("neuron", ["neuron"]), ("helexa-bench", ["bench", "run"])],
)
def test_a_unit_starts_its_role_with_its_settings(unit: str, command: list[str]) -> None:
    text = (EXAMPLES.parents[1] / "packaging" / "systemd" / f"{unit}.service").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, *arguments = line.removeprefix("ExecStart=").split()
    assert program.endswith("/bin/helexa")
    assert arguments == [*command, "--config", f"/etc/{unit}/{unit}.toml"]
    group = CliRunner().invoke(helexa, [*command, "--help"])
    assert "--config" in group.output


def test_the_gateways_unit_tries_to_start_for_as_long_as_its_database_is_away() -> None:
    text = (EXAMPLES.parents[1] / "packaging" / "systemd" / "cortex.service").read_text()
    assert "StartLimitIntervalSec=0\n" in text
    assert "Restart=on-failure\n" in text
