"""What would become of a model, and what would make it fit."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.neuron.elsewhere import Elsewhere
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder
from tests.neuron.test_scout import scout

from helexa.core.errors import ModelNotFound
from helexa.core.fleet import Device, DeviceReading, LoadRequest
from helexa.core.outlook import Outlook
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.limits import derive
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import Shape, write_model
from helexa.neuron.outlook import Foreteller
from helexa.neuron.outlook.foretell import ASSUMED_RATE
from helexa.neuron.outlook.memory import uses_of
from helexa.neuron.outlook.nearest import toml
from helexa.neuron.plan.empty import emptied
from helexa.neuron.plan.wanted import HOST
from helexa.neuron.settings import ContextLimitSettings
from helexa.spark import gguf_path

MIB = 1 << 20
SMALL = Shape(layers=8, embedding=512, feed_forward=1536, vocab=8192, quant="Q8_0")


@dataclass
class Rig:
    """A foreteller over a hub in a folder."""

    hub: Elsewhere
    folder: Path
    disk_free: int | None = 50 << 30
    loaded: list[str] = field(default_factory=list)

    def ask(self, model_id: str = "org/m", free_mb: int = 4096, **more: object) -> Outlook:
        spec = LoadRequest(model_id, **more)  # type: ignore[arg-type]
        return asyncio.run(self.teller(free_mb).outlook(spec))

    def teller(self, free_mb: int) -> Foreteller:
        limits = ContextLimitSettings()
        return Foreteller(
            scout=scout(self.hub, self.folder, Host((), (), 8192, free_mb, 2)),
            limit=lambda facts, plan, rate: derive(facts, plan, limits, rate or 800.0),
            disk=lambda _: None if self.disk_free is None else (Path("/cache"), self.disk_free),
            loaded=lambda: self.loaded,
            headroom_mb=limits.activation_headroom_mb,
        )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    (tmp_path / "hub" / "org" / "m").mkdir(parents=True)
    return Rig(Elsewhere(tmp_path / "hub"), tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 MiB of random weights."""
    return write_model(tmp_path_factory.mktemp("model") / "m-Q8_0.gguf", SMALL)


def test_a_model_that_runs_says_on_what_with_how_much(rig: Rig, model: Path) -> None:
    shutil.copy(model, rig.hub.folder / "org/m/m-Q8_0.gguf")
    told = rig.ask()
    assert (told.ok, told.possible, told.engine, told.quant) == (True, True, "llamacpp", "Q8_0")
    use = told.memory[0]
    assert (use.index, use.free_mb) == (HOST, 4096)
    assert use.weights_mb == pytest.approx(told.weights_mb, abs=1)
    assert use.kv_mb > 0
    assert use.needed_mb <= use.usable_mb < use.free_mb
    assert told.slots > 1
    assert told.limit is not None
    assert told.limit.context <= told.context
    assert told.parameters == inspect(model, "m").parameters
    assert rig.hub.fetched == []


def test_a_download_says_how_long_and_where_to(rig: Rig) -> None:
    shutil.copy(gguf_path(), rig.hub.folder / "org/m/m.gguf")
    download = rig.ask().download
    size = gguf_path().stat().st_size
    assert download is not None
    assert (download.bytes_total, download.bytes_missing) == (size, size)
    assert download.measured  # the header was a megabyte
    assert (download.folder, download.disk_free, download.fits) == ("/cache", 50 << 30, True)


def test_an_unmeasured_line_is_assumed_and_said_so(rig: Rig) -> None:
    write_folder(rig.hub.folder / "org/m", known.LLAMA_3_1_8B)
    download = rig.ask().download
    assert download is not None
    assert (download.rate, download.measured) == (ASSUMED_RATE, False)


def test_a_disk_without_room_stops_it(rig: Rig) -> None:
    shutil.copy(gguf_path(), rig.hub.folder / "org/m/m.gguf")
    rig.disk_free = 1 << 20
    told = rig.ask()
    assert (told.ok, told.possible, told.reason) == (False, True, "disk_full")
    assert "/cache has 1 MiB free" in (told.detail or "")


def test_a_model_that_is_here_has_nothing_to_fetch(rig: Rig, model: Path) -> None:
    told = rig.ask(str(model))
    assert told.download is not None
    assert (told.download.bytes_missing, told.download.seconds) == (0, 0.0)
    assert told.ok


def test_what_is_short_of_memory_says_where_and_what_would_fit(rig: Rig, model: Path) -> None:
    place = rig.hub.folder / "org/m"
    shutil.copy(model, place / "m-Q8_0.gguf")
    write_model(place / "m-Q4_0.gguf", Shape(**{**{f: getattr(SMALL, f) for f in (
        "layers", "embedding", "feed_forward", "vocab")}, "quant": "Q4_0"}))  # fmt: skip
    rig.loaded = ["other/model"]
    nothing = rig.ask(free_mb=0, quant="Q8_0").shortage
    assert nothing is not None
    headroom = 8192 // 10
    told = rig.ask(free_mb=nothing.needed_mb + headroom - 1, quant="Q8_0")
    assert rig.ask(free_mb=nothing.needed_mb + headroom, quant="Q8_0").ok
    assert (told.ok, told.possible, told.reason) == (False, True, "insufficient_vram")
    assert told.shortage is not None
    assert told.shortage.needed_mb > told.shortage.usable_mb
    assert told.memory[0].needed_mb == told.shortage.needed_mb
    lines = [line for step in told.nearest for line in step.lines]
    assert 'quant = "Q4_0"' in lines
    assert "helexa fleet unload other/model" in lines


def test_a_shorter_context_is_named_with_its_lines(rig: Rig, model: Path) -> None:
    shutil.copy(model, rig.hub.folder / "org/m/m-Q8_0.gguf")
    teller = rig.teller(1200)
    wish: dict[str, object] = {"ctx": 40_960, "slots": 4}
    teller.scout.wishes = lambda _engine, _spec: wish
    told = asyncio.run(teller.outlook(LoadRequest("org/m")))
    assert not told.ok
    step = told.nearest[0]
    assert step.lines[0] == "[engines.llamacpp]"
    settings = dict(line.split(" = ") for line in step.lines[1:])
    for name, value in settings.items():
        wish[name] = int(value) if value.isdigit() else value.strip('"')
    assert asyncio.run(teller.outlook(LoadRequest("org/m"))).ok


def test_a_model_too_large_for_the_host_is_not_possible(rig: Rig, model: Path) -> None:
    shutil.copy(model, rig.hub.folder / "org/m/m-Q8_0.gguf")
    teller = rig.teller(60)
    teller.scout.host = lambda: Host((), (), 96, 60, 2)
    told = asyncio.run(teller.outlook(LoadRequest("org/m")))
    assert (told.ok, told.possible) == (False, False)


def test_without_an_engine_it_says_why_and_what_to_take(rig: Rig) -> None:
    write_folder(rig.hub.folder / "org/m", known.LLAMA_3_1_8B, chat_template_jinja="{{ tools }}")
    told = rig.ask()
    assert (told.ok, told.engine, told.reason) == (False, None, "unsupported_format")
    assert [(c.engine, c.ok) for c in told.candidates] == [("llamacpp", False)]
    assert told.nearest[0].what.startswith("Take a GGUF of it")
    assert (told.capabilities, told.tool_call) == (["text", "tools"], True)


def test_a_model_that_is_nowhere_says_where_was_looked(rig: Rig) -> None:
    told = rig.ask("org/nothing")
    assert (told.ok, told.reason) == (False, "model_not_found")
    with pytest.raises(ModelNotFound):
        asyncio.run(rig.teller(4096).known(LoadRequest("org/nothing")))


def test_how_a_model_thinks_is_told(rig: Rig) -> None:
    template = "{{ '</think>' }}{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    write_folder(rig.hub.folder / "org/m", known.QWEN2_5_OMNI, chat_template_jinja=template)
    told = rig.ask()
    assert told.thinking is not None
    assert (told.thinking.forced, told.thinking.variable) == (True, None)
    assert told.unsupported == ["audio"]


def test_memory_of_two_devices_adds_up_to_the_plan() -> None:
    facts = inspect(gguf_path(), "m")
    big = ModelFacts("m", Path(), "gguf", "a", 1, 10_000 * MIB, 40, 40, 8, 128, 128, 4096, 4096,
                     32_000, embedding_bytes=500 * MIB)  # fmt: skip
    devices = tuple(Device(n, f"GPU {n}", 12_000) for n in range(2))
    readings = tuple(DeviceReading(n, 1000, 11_000) for n in range(2))
    host = Host(devices, readings, 32_000, 20_000, 8)
    plan = Plan(4096, 4, 16_384, devices=(0, 1), gpu_layers=41, cache_ram_mb=256,
                memory_mb={0: 7000, 1: 6500, HOST: 900})  # fmt: skip
    uses = uses_of(big, plan, host, 2048)
    assert [use.index for use in uses] == [0, 1, HOST]
    assert [use.needed_mb for use in uses] == [7000, 6500, 900]
    assert uses[2].prompt_cache_mb == 256
    assert sum(use.weights_mb for use in uses) == pytest.approx(10_000, abs=4)
    assert sum(use.kv_mb for use in uses) == pytest.approx(2560, rel=0.2)
    assert emptied(host).readings[0].vram_free_mb == 12_000
    assert facts.layers


@pytest.mark.parametrize(
    ("value", "text"), [(4096, "4096"), ("q8_0", '"q8_0"'), ('a"b', '"a\\"b"'), (True, "true")]
)
def test_settings_are_written_as_toml_reads_them(value: object, text: str) -> None:
    assert toml(value) == text
