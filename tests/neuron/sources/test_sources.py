"""From a model id to a file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from helexa.core.errors import InvalidRequestBody, ModelNotFound, ServiceUnavailable
from helexa.neuron.sources.builtin import BuiltIn
from helexa.neuron.sources.ids import ModelRef, parse_model_id
from helexa.neuron.sources.local import LocalFiles
from helexa.neuron.sources.sources import Sources

SCHEMES = frozenset({"hf", "file"})
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("text", "scheme", "name"), [
    ("org/name", None, "org/name"),
    ("hf:org/name", "hf", "org/name"),
    ("qwen3:0.6b", None, "qwen3:0.6b"),
    ("/models/a.gguf", None, "/models/a.gguf"),
    ("file:/models/a.gguf", "file", "/models/a.gguf"),
    ("bare", None, "bare"),
])  # fmt: skip
def test_the_scheme_only_selects_the_source(text: str, scheme: str | None, name: str) -> None:
    assert parse_model_id(text, SCHEMES) == ModelRef(scheme, name)


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestBody, match=r"unknown source 'hub'.*file, hf"):
        parse_model_id("hub:org/name", SCHEMES)


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidRequestBody, match="empty"):
        parse_model_id("  ", SCHEMES)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    built_in = tmp_path / "built-in.gguf"
    built_in.write_bytes(b"x")
    local = LocalFiles((tmp_path / "store",))
    return Sources({"helexa": BuiltIn({"helexa/spark": built_in}), "file": local}, "file")


async def test_the_built_in_model_is_always_found(sources: Sources, tmp_path: Path) -> None:
    assert await sources.locate("helexa/spark") == tmp_path / "built-in.gguf"


async def test_a_path_is_its_own_source(sources: Sources, tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"x")
    assert await sources.locate(str(file)) == file
    assert await sources.locate("org/renamed", source=str(file)) == file


async def test_a_folder_under_a_root_is_found_by_name(sources: Sources, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "name-Q8_0.gguf").write_bytes(b"x")
    (folder / "mmproj-name.gguf").write_bytes(b"x")
    assert await sources.locate("org/name") == folder / "name-Q8_0.gguf"


async def test_a_projector_that_is_named_is_that_file_and_no_quant_of_another(
    sources: Sources, tmp_path: Path
) -> None:
    for name in ("m-Q8_0.gguf", "mmproj-m-F16.gguf"):
        (tmp_path / name).write_bytes(b"x")
    named = tmp_path / "mmproj-m-F16.gguf"  # what it is says its header, to whoever loads it
    assert await sources.locate(str(named)) == named


async def test_the_quant_picks_among_several_files(sources: Sources, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("m-Q8_0.gguf", "m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"):
        (folder / name).write_bytes(b"x")
    found = await sources.locate(f"{folder}/", quant="q4_k_m")
    assert found.name == "m-Q4_K_M-00001-of-00002.gguf"
    assert (await sources.locate(f"{folder}/")) == found, "the usual one when none is named"
    (folder / "m-Q4_K_M-00001-of-00002.gguf").rename(folder / "m-Q6_K.gguf")
    (folder / "m-Q4_K_M-00002-of-00002.gguf").unlink()
    with pytest.raises(ModelNotFound, match=r"2 models, and none was named.*m-Q8_0\.gguf"):
        await sources.locate(f"{folder}/")
    with pytest.raises(ModelNotFound, match="has no file of quant Q2_K"):
        await sources.locate(f"{folder}/", quant="Q2_K")


async def test_what_is_missing_is_named_with_the_places_looked_in(
    sources: Sources, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFound, match=str(tmp_path / "store" / "org" / "none")):
        await sources.locate("org/none")
    with pytest.raises(ModelNotFound, match=r"/nowhere/x\.gguf"):
        await sources.locate("/nowhere/x.gguf")


async def test_a_place_that_cannot_be_looked_into_is_named(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    (tmp_path / "private").mkdir()
    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.raises(ServiceUnavailable, match=r"private: Permission denied.*may read it"):
        await sources.locate(str(tmp_path / "private"))
    with pytest.raises(ModelNotFound, match="no such home directory"):
        await sources.locate("~nobody-at-all/model.gguf")


async def test_a_folder_of_safetensors_is_taken_whole(sources: Sources, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    assert await sources.locate(str(folder)) == folder


async def test_a_listing_says_what_is_here_before_anything_is_fetched(
    sources: Sources, tmp_path: Path
) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("m-Q8_0.gguf", "m-Q4_0.gguf", "mmproj-m-F16.gguf", "README.md"):
        (folder / name).write_bytes(name.encode())
    listing = await sources.describe("org/m", source=str(folder), quant="Q4_0")
    assert (listing.name, listing.scheme, listing.quant) == ("org/m", "file", "Q4_0")
    assert [file.name for file in listing.files] == ["mmproj-m-F16.gguf", "m-Q4_0.gguf"]
    assert (listing.bytes_total, listing.bytes_missing) == (28, 0)
    assert listing.path == folder / "m-Q4_0.gguf"
    assert listing.quants == ("Q4_0", "Q8_0")
    assert await sources.peek(listing, "m-Q4_0.gguf", 2, 4) == b"Q4_0"
    assert await sources.peek(listing, "m-Q4_0.gguf", 7, 100) == b"gguf"
