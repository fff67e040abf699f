"""Facts of models that are not here: the same as of those that are, for a few reads."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from tests.neuron.models import families as known
from tests.neuron.models.conftest import MakeGguf, basics
from tests.neuron.models.families import write_folder

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.gguf import BadModelFile
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.listed import FIRST_BYTES, Remote, remote_facts
from helexa.spark import gguf_path


def remotely(folder: Path, *names: str) -> tuple[ModelFacts, list[tuple[str, int]]]:
    """Facts through ``peek`` alone, and what was read."""
    read: list[tuple[str, int]] = []

    async def peek(name: str, start: int, length: int) -> bytes:
        data = (folder / name).read_bytes()[start : start + length]
        read.append((name, len(data)))
        return data

    files = [(name, (folder / name).stat().st_size) for name in names]
    return asyncio.run(remote_facts(Remote("m", "hub:org/m", files), peek)), read


def told(facts: ModelFacts) -> dict[str, object]:
    """Everything but where it lies, and what only the weights' headers say."""
    blank = msgspec.structs.replace(
        facts, path=Path(), files=(), projector=None, parameters=0, weight_bytes=0
    )
    return msgspec.structs.asdict(blank)


def test_a_header_that_is_read_from_afar_says_the_same() -> None:
    facts, read = remotely(gguf_path().parent, gguf_path().name)
    here = inspect(gguf_path(), "m")
    assert told(facts) == told(here)
    assert (facts.parameters, facts.weight_bytes) == (here.parameters, here.weight_bytes)
    assert sum(size for _, size in read) <= FIRST_BYTES


def test_a_long_header_is_asked_for_in_growing_pieces(make_gguf: MakeGguf) -> None:
    words = {"tokenizer.ggml.tokens": [f"token number {n}" for n in range(120_000)]}
    path = make_gguf(metadata={**words, **basics("qwen3")}, data=4 << 20)
    facts, read = remotely(path.parent, path.name)
    assert facts.vocab == 120_000
    assert 2 <= len(read) <= 4
    assert sum(size for _, size in read) < path.stat().st_size


def test_shards_are_read_each_and_a_projector_is_only_seen(make_gguf: MakeGguf) -> None:
    first = make_gguf("m-00001-of-00002.gguf")
    make_gguf("m-00002-of-00002.gguf", tensors={"output.weight": ((64, 8), "F32")})
    make_gguf("mmproj-m.gguf")
    names = ("mmproj-m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    facts, read = remotely(first.parent, *names)
    assert facts.parameters == 2 * 64 * 8
    assert (facts.capabilities, facts.projector) == (("text", "vision"), Path("mmproj-m.gguf"))
    assert {name for name, _ in read} == set(names[1:])


def test_a_folder_is_read_by_its_small_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, known.GEMMA3_4B, chat_template_jinja="{{ tools }}")
    facts, read = remotely(folder, "config.json", "chat_template.jinja", "model.safetensors")
    assert told(facts) == told(inspect(folder, "m"))
    assert {name for name, _ in read} == {"config.json", "chat_template.jinja"}
    assert facts.weight_bytes == (folder / "model.safetensors").stat().st_size


def test_a_header_cut_short_is_an_error_of_the_file(make_gguf: MakeGguf) -> None:
    path = make_gguf()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadModelFile, match="truncated"):
        remotely(path.parent, path.name)


def test_a_source_that_gives_less_than_it_lists_ends_the_reading(make_gguf: MakeGguf) -> None:
    path = make_gguf()
    shutil.copy(path, whole := path.with_name("whole.gguf"))

    async def peek(name: str, start: int, length: int) -> bytes:
        return whole.read_bytes()[start : min(start + length, 64)]

    with pytest.raises(BadModelFile, match="takes"):
        asyncio.run(remote_facts(Remote("m", "hub", [("m.gguf", path.stat().st_size)]), peek))
