"""What a node finds out about a model before it fetches or starts anything."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.neuron.elsewhere import Elsewhere
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder

from helexa.core.errors import (
    InsufficientVram,
    ModelNotFound,
    ServiceUnavailable,
    UnsupportedOperation,
)
from helexa.core.fleet import LoadRequest
from helexa.neuron.engines.base import Engine, Host, Plan, Verdict
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.metrics import NeuronMetrics
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.known import KnownFacts, Read
from helexa.neuron.registry.loader import ModelLoader, Running
from helexa.neuron.registry.scout import Scout
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.sources.builtin import BuiltIn
from helexa.neuron.sources.local import LocalFiles
from helexa.neuron.sources.sources import Sources
from helexa.spark import MODEL_ID, gguf_path, safetensors_dir

CPU = Host((), (), 8192, 4096, 2)


@pytest.fixture
def hub(tmp_path: Path) -> Elsewhere:
    (tmp_path / "hub" / "org" / "m").mkdir(parents=True)
    return Elsewhere(tmp_path / "hub")


def scout(hub: Elsewhere, tmp_path: Path, host: Host = CPU) -> Scout:
    sources = Sources({"hub": hub, "file": LocalFiles()}, "hub")
    engines: dict[str, Engine] = {"llamacpp": LlamaCpp({})}
    return Scout(
        sources=sources,
        known=KnownFacts(sources, inspect, time.monotonic),
        engines=engines,
        host=lambda: host,
        wishes=lambda _engine, _spec: {},
        experience=Experience(tmp_path / "experience.json"),
    )


def spark_as(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(gguf_path(), folder / name)


def test_a_model_is_known_without_fetching_it(hub: Elsewhere, tmp_path: Path) -> None:
    spark_as(hub.folder / "org/m", "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    one = scout(hub, tmp_path)
    found = asyncio.run(one.find(LoadRequest("org/m", quant="q8_0")))
    assert found.choice.engine == "llamacpp"
    assert (found.listing.quant, found.facts.layers) == ("Q8_0", inspect(gguf_path(), "m").layers)
    assert one.plan(found, LoadRequest("org/m"), found.host).context > 0
    assert hub.fetched == []


@pytest.mark.parametrize(("name", "asked", "is_it"), [
    ("m-Q8_0.gguf", "q8-0", True),
    ("m-Q8_0.gguf", "m-Q8_0", True),
    ("m-Q8_0.gguf", "F16", True),  # as its header says
    ("m-Q8_0.gguf", "Q4_K_M", False),
    ("m.gguf", "fp16", True),
    ("m.gguf", "UD-F16", True),
    ("m.gguf", "Q4_K_M", False),
])  # fmt: skip
def test_a_file_that_was_named_is_not_loaded_as_another_quant(
    hub: Elsewhere, tmp_path: Path, name: str, asked: str, is_it: bool
) -> None:
    spark_as(tmp_path, name)
    one = scout(hub, tmp_path)
    looking = one.find(LoadRequest("house/m", quant=asked, source=str(tmp_path / name)))
    if is_it:
        assert asyncio.run(looking).facts.quant == "F16"
        return
    with pytest.raises(ModelNotFound, match=f"house/m is .* asks for {asked}") as refused:
        asyncio.run(looking)
    assert refused.value.param == "quant"


def test_safetensors_are_not_loaded_for_a_quant_that_they_are_not(
    hub: Elsewhere, tmp_path: Path
) -> None:
    place = write_folder(hub.folder / "org/m", known.LLAMA_3_1_8B)
    spark_as(place, "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    one = scout(hub, tmp_path)
    assert asyncio.run(one.find(LoadRequest("org/m", quant="bf16"))).facts.format == "safetensors"
    with pytest.raises(ModelNotFound, match=r"is BF16, and quant asks for Q5_K_M.*Q4_K_M, Q8_0"):
        asyncio.run(one.find(LoadRequest("org/m", quant="Q5_K_M")))


def test_a_header_is_read_once_until_its_file_changes(hub: Elsewhere, tmp_path: Path) -> None:
    spark_as(hub.folder / "org/m", "m.gguf")
    one = scout(hub, tmp_path)

    async def thrice() -> None:
        for _ in range(3):
            await one.find(LoadRequest("org/m"))

    asyncio.run(thrice())
    assert len(hub.peeked) == 1
    hub.revision = "r2"
    asyncio.run(thrice())
    assert len(hub.peeked) == 2


def test_a_file_here_is_read_again_when_its_time_has_changed(tmp_path: Path) -> None:
    path = Path(shutil.copy(gguf_path(), tmp_path / "m.gguf"))
    sources = Sources({"file": LocalFiles()}, "file")
    read: list[Path] = []

    def noted(file: Path, name: str) -> object:
        read.append(file)
        return inspect(file, name)

    facts = KnownFacts(sources, noted, time.monotonic)  # type: ignore[arg-type]

    async def look() -> Read:
        return await facts.of(await sources.describe(str(path)))

    first = asyncio.run(look())
    assert asyncio.run(look()) == first
    assert len(read) == 1
    os.utime(path, (1, 1))
    asyncio.run(look())
    assert len(read) == 2


def test_of_a_model_in_both_formats_the_one_that_runs_here_is_taken(
    hub: Elsewhere, tmp_path: Path
) -> None:
    place = write_folder(hub.folder / "org/m", known.LLAMA_3_1_8B)
    spark_as(place, "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    found = asyncio.run(scout(hub, tmp_path).find(LoadRequest("org/m")))
    assert (found.facts.format, found.listing.quant) == ("gguf", "Q4_K_M")
    assert "GGUF is taken" in found.note


class Sized(LlamaCpp):
    """Runs safetensors where there is enough memory for them."""

    name = "vllm"

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        return Verdict(facts.format == "safetensors", detail="runs safetensors only")

    def plan(self, facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
        if host.memory_free_mb < 6000:
            raise InsufficientVram("it needs 6000 MiB")
        return Plan(2048, 1, 2048)


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "kind"),
    [(8192, 7000, "safetensors"), (8192, 100, "safetensors"), (4096, 4000, "gguf")],
    ids=["there is room", "there would be", "there never is"],
)
def test_weights_are_chosen_by_what_the_host_has_not_by_what_is_free_just_now(
    hub: Elsewhere, tmp_path: Path, total_mb: int, free_mb: int, kind: str
) -> None:
    place = write_folder(hub.folder / "org/m", known.LLAMA_3_1_8B)
    spark_as(place, "m-Q4_K_M.gguf")
    one = scout(hub, tmp_path, Host((), (), total_mb, free_mb, 2))
    one.engines = {"llamacpp": LlamaCpp({}), "vllm": Sized({})}
    assert asyncio.run(one.find(LoadRequest("org/m"))).facts.format == kind


@pytest.mark.parametrize(
    ("harness", "kind", "path"),
    [
        (None, "gguf", gguf_path()),
        ("llamacpp", "gguf", gguf_path()),
        ("vllm", "safetensors", safetensors_dir()),
    ],
)
def test_the_built_in_model_is_there_in_the_form_of_the_engine_that_is_asked_for(
    hub: Elsewhere, tmp_path: Path, harness: str | None, kind: str, path: Path
) -> None:
    one = scout(hub, tmp_path)
    built_in = BuiltIn({MODEL_ID: gguf_path()}, {MODEL_ID: safetensors_dir()})
    one.sources = Sources({"builtin": built_in}, "builtin")
    one.known = KnownFacts(one.sources, inspect, time.monotonic)
    one.engines = {"llamacpp": LlamaCpp({}), "vllm": Sized({})}
    found = asyncio.run(one.find(LoadRequest(MODEL_ID, harness=harness)))
    assert (found.facts.format, found.listing.path) == (kind, path)
    assert found.choice.engine == (harness or "llamacpp")


def test_safetensors_alone_are_refused_with_what_would_help(hub: Elsewhere, tmp_path: Path) -> None:
    write_folder(hub.folder / "org/m", known.LLAMA_3_1_8B)
    one = scout(hub, tmp_path)
    spec = LoadRequest("org/m")
    found = asyncio.run(one.find(spec))
    with pytest.raises(ServiceUnavailable, match=r"llama\.cpp runs GGUF.*Take a GGUF of it"):
        one.engine(found, spec)


def test_speech_is_refused_before_a_byte_of_it_is_fetched(hub: Elsewhere, tmp_path: Path) -> None:
    write_folder(hub.folder / "org/m", known.WHISPER)
    one = scout(hub, tmp_path)
    spec = LoadRequest("org/m")
    with pytest.raises(UnsupportedOperation, match="turns speech into text"):
        one.engine(asyncio.run(one.find(spec)), spec)
    assert hub.fetched == []


def test_what_does_not_fit_is_known_before_it_is_fetched(hub: Elsewhere, tmp_path: Path) -> None:
    spark_as(hub.folder / "org/m", "m.gguf")
    tiny = Host((), (), 64, 32, 1)
    one = scout(hub, tmp_path, tiny)
    spec = LoadRequest("org/m")
    found = asyncio.run(one.find(spec))
    with pytest.raises(InsufficientVram):
        one.plan(found, spec, found.host)


def test_quant_and_source_reach_the_files_under_the_served_name(
    hub: Elsewhere, tmp_path: Path
) -> None:
    spark_as(hub.folder / "org/m", "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    spec = LoadRequest("house/name", quant="Q8_0", source="hub:org/m")
    found = asyncio.run(scout(hub, tmp_path).find(spec))
    assert (found.listing.name, found.listing.repository) == ("house/name", "org/m")
    assert (found.listing.quant, found.facts.model_id) == ("Q8_0", "house/name")


class Nobody:
    """Watches a load and says nothing."""

    def progress(self, fraction: float, eta_s: float | None, download: object = None) -> None: ...

    def engine(self, change: object) -> None: ...


@pytest.mark.parametrize("host", [Host((), (), 64, 32, 1), CPU], ids=["too small", "no engine"])
def test_a_load_that_cannot_work_is_refused_before_its_download(
    hub: Elsewhere, tmp_path: Path, host: Host
) -> None:
    if host is CPU:
        write_folder(hub.folder / "org/m", known.LLAMA_3_1_8B)
    else:
        spark_as(hub.folder / "org/m", "m.gguf")
    one = scout(hub, tmp_path, host)
    loader = ModelLoader(
        scout=one,
        used_by=lambda _: {},
        assemble=lambda _: pytest.fail("nothing was to be started"),
        experience=one.experience,
        supervision=SupervisorSettings(),
        state_dir=tmp_path,
        clock=time.monotonic,
        metrics=NeuronMetrics("n"),
    )
    with pytest.raises(ServiceUnavailable if host is CPU else InsufficientVram):
        asyncio.run(loader.prepare(LoadRequest("org/m"), Nobody()))
    assert hub.fetched == []


def test_a_load_that_fails_behind_its_engines_start_leaves_no_process(
    hub: Elsewhere, tmp_path: Path
) -> None:
    spark_as(hub.folder / "org/m", "m.gguf")
    one = scout(hub, tmp_path)
    started: list[int | None] = []

    def assemble(running: Running) -> ServedModel:
        started.append(running.process.pid)
        raise MemoryError

    loader = ModelLoader(
        scout=one,
        used_by=lambda _: {},
        assemble=assemble,
        experience=one.experience,
        supervision=SupervisorSettings(),
        state_dir=tmp_path,
        clock=time.monotonic,
        metrics=NeuronMetrics("n"),
    )

    async def load() -> None:
        begin = await loader.prepare(LoadRequest("org/m"), Nobody())
        with pytest.raises(MemoryError):
            await begin()
        assert started[0] is not None
        with pytest.raises(ProcessLookupError):
            os.kill(started[0], 0)

    asyncio.run(load())
