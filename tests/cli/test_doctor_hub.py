"""``helexa doctor MODEL`` of a model on a hub: real HTTP, headers only, nothing fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder

from helexa.cli.app import helexa
from helexa.neuron.models.synthetic import Shape, write_model
from helexa.neuron.sources.fake.hub import FakeHub
from helexa.spark import gguf_path


@dataclass
class Rig:
    """A hub, and a host that knows it."""

    hub: FakeHub
    place: Path
    config: Path
    cache: Path

    def doctor(self, *arguments: str) -> tuple[int, Any]:
        """Exit status, and the answer as programs get it."""
        command = ["doctor", *arguments, "--json", "--config", str(self.config)]
        done = CliRunner().invoke(helexa, command)
        assert done.stdout, done.stderr
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    place = tmp_path / "hub" / "org" / "m"
    place.mkdir(parents=True)
    hub = FakeHub(tmp_path / "hub").start()
    config, cache = tmp_path / "neuron.toml", tmp_path / "cache"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\ndefault_source = "near"\n'
        f'[sources.near]\nendpoint = "{hub.url}"\ncache_dir = "{cache}"\n'
    )
    try:
        yield Rig(hub, place, config, cache)
    finally:
        hub.stop()


def test_a_model_on_a_hub_is_known_without_fetching_it(rig: Rig) -> None:
    shutil.copy(gguf_path(), rig.place / "m-Q8_0.gguf")
    shutil.copy(gguf_path(), rig.place / "m-Q4_K_M.gguf")
    status, told = rig.doctor("org/m", "--quant", "q8_0")
    assert (status, told["ok"], told["engine"], told["quant"]) == (0, True, "llamacpp", "Q8_0")
    assert (told["source"], told["quants"]) == ("near", ["Q4_K_M", "Q8_0"])
    download = told["download"]
    assert download["bytes_missing"] == download["bytes_total"] == gguf_path().stat().st_size
    assert download["measured"]
    assert (download["folder"], download["disk_free"] > 0) == (str(rig.cache), True)
    assert not list(rig.cache.rglob("*.gguf"))


def test_of_both_formats_on_a_hub_the_one_that_runs_here_is_taken(rig: Rig) -> None:
    write_folder(rig.place, known.LLAMA_3_1_8B)
    shutil.copy(gguf_path(), rig.place / "m-Q4_K_M.gguf")
    no_vllm = rig.config.read_text() + '[engines.vllm]\npython = "/nowhere/python"\n'
    rig.config.write_text(no_vllm)
    status, told = rig.doctor("org/m")
    assert (status, told["format"], told["quant"]) == (0, "gguf", "Q4_K_M")
    assert "GGUF is taken" in told["notes"][0]


def test_a_smaller_quant_of_the_hub_is_named_when_it_would_fit(rig: Rig) -> None:
    shape = Shape(layers=8, embedding=512, feed_forward=1536, vocab=8192, quant="Q8_0")
    write_model(rig.place / "m-Q8_0.gguf", shape)
    small = Shape(layers=8, embedding=512, feed_forward=1536, vocab=8192, quant="Q4_0")
    write_model(rig.place / "m-Q4_0.gguf", small)
    settings = rig.config.read_text()
    rig.config.write_text(settings + "[prefix_cache]\nbudget_mb = 0\n[memory]\nhost_mb = 60\n")
    _, short = rig.doctor("org/m", "--quant", "Q8_0")
    needed = short["shortage"]["needed_mb"]
    # A tenth of the budget stays free; a little less than what it takes then.
    budget = int(needed / 0.9) - 4
    rig.config.write_text(
        settings + f"[prefix_cache]\nbudget_mb = 0\n[memory]\nhost_mb = {budget}\n"
    )
    status, told = rig.doctor("org/m", "--quant", "Q8_0")
    assert (status, told["ok"], told["reason"]) == (1, False, "insufficient_vram")
    assert 'quant = "Q4_0"' in [line for step in told["nearest"] for line in step["lines"]]


def test_a_quant_that_is_not_there_names_the_nearest(rig: Rig) -> None:
    shutil.copy(gguf_path(), rig.place / "m-Q8_0.gguf")
    status, told = rig.doctor("org/m", "--quant", "Q6_K")
    assert (status, told["reason"]) == (1, "model_not_found")
    assert "Q8_0" in told["detail"]
    status, told = rig.doctor("org/absent")
    assert (status, told["ok"]) == (1, False)
