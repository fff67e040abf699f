"""Models from a hub: what is described, what is fetched, and what is said when neither works."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.neuron.sources.rig import WEIGHTS, Stand

from helexa.core.errors import Forbidden, InvalidRequestBody, ModelNotFound, ServiceUnavailable
from helexa.neuron.sources.hub import cache
from helexa.neuron.sources.hub.api import NotInstalled, need_library
from helexa.neuron.sources.hub.hub import Hub
from helexa.neuron.sources.hub.names import HubName, parse_hub_name


def gguf(stand: Stand, *quants: str, name: str = "org/m-GGUF") -> None:
    for quant in quants:
        stand.write(f"{name}/m-{quant}.gguf", quant.encode() + WEIGHTS)


@pytest.mark.parametrize(("name", "quant", "parsed"), [
    ("org/m", None, HubName("org/m")),
    ("org/m", "Q8_0", HubName("org/m", None, "Q8_0")),
    ("org/m:Q4_K_M", None, HubName("org/m", None, "Q4_K_M")),
    ("org/m:Q4_K_M", "q4_k_m", HubName("org/m", None, "Q4_K_M")),
    ("org/m:latest", None, HubName("org/m")),
    ("org/m@v1.0", None, HubName("org/m", "v1.0")),
    ("org/m@v1.0:Q8_0", None, HubName("org/m", "v1.0", "Q8_0")),
    ("org/m/big/m-Q8_0.gguf", None, HubName("org/m", None, "big/m-Q8_0.gguf")),
])  # fmt: skip
def test_a_name_may_carry_a_quant_a_file_and_a_revision(
    name: str, quant: str | None, parsed: HubName
) -> None:
    assert parse_hub_name(name, quant) == parsed


def test_a_tag_and_a_quant_that_differ_are_refused() -> None:
    with pytest.raises(InvalidRequestBody, match="asks for Q4_K_M, and quant for Q8_0"):
        parse_hub_name("org/m:Q4_K_M", "Q8_0")


@pytest.mark.parametrize("name", ["bare", "a/b/c", "org/..", "../../etc/x.gguf", "org/m/../x.gguf",
                                  "org/m@/etc/x"])  # fmt: skip
def test_what_is_no_name_of_a_repository_is_not_asked_for(name: str) -> None:
    with pytest.raises(ModelNotFound, match="neither a file here nor the name of a repository"):
        parse_hub_name(name, None)


def test_a_model_is_described_without_fetching_it(stand: Stand) -> None:
    gguf(stand, "Q4_0", "Q8_0")
    stand.write("org/m-GGUF/mmproj-m-F16.gguf", b"eyes")
    listing = stand.describe("hf:org/m-GGUF:q8_0")
    assert (listing.name, listing.scheme, listing.quant) == ("org/m-GGUF:q8_0", "hf", "Q8_0")
    assert [f.name for f in listing.files] == ["mmproj-m-F16.gguf", "m-Q8_0.gguf"]
    assert listing.bytes_total == listing.bytes_missing == len(WEIGHTS) + 8
    assert (listing.path, listing.quants) == (None, ("Q4_0", "Q8_0"))
    assert not stand.hub.served.bytes


def test_a_header_can_be_read_before_its_file_is_fetched(stand: Stand) -> None:
    gguf(stand, "Q8_0")

    async def peek() -> tuple[bytes, bytes, bytes]:
        sources = stand.sources()
        listing = await sources.describe("org/m-GGUF")
        file = listing.files[-1].name
        return (
            await sources.peek(listing, file, 0, 6),
            await sources.peek(listing, file, 4 + len(WEIGHTS) - 2, 100),
            await sources.peek(listing, file, 10 + len(WEIGHTS), 5),
        )

    assert asyncio.run(peek()) == (b"Q8_0\x00\x01", WEIGHTS[-2:], b"")
    assert sum(stand.hub.served.bytes.values()) == 8


def test_a_gguf_repository_is_fetched_by_quant_with_its_projector_and_nothing_else(
    stand: Stand,
) -> None:
    gguf(stand, "Q4_0")
    for shard in (1, 2):
        stand.write(f"org/m-GGUF/big/m-Q8_0-0000{shard}-of-00002.gguf", WEIGHTS + bytes([shard]))
    stand.write("org/m-GGUF/mmproj-m-F16.gguf", b"eyes")
    stand.write("org/m-GGUF/README.md", b"words")
    path = stand.fetch("org/m-GGUF", "q8_0")
    assert path.name == "m-Q8_0-00001-of-00002.gguf"
    assert path.with_name("m-Q8_0-00002-of-00002.gguf").read_bytes() == WEIGHTS + b"\2"
    snapshot = path.parent.parent
    assert (snapshot / "mmproj-m-F16.gguf").read_bytes() == b"eyes"
    assert sorted(p.name for p in snapshot.rglob("*") if p.is_file()) == [
        "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "mmproj-m-F16.gguf",
    ]  # fmt: skip


def test_a_safetensors_folder_is_fetched_without_copies_of_its_weights(stand: Stand) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    for name, content in {
        "config.json": b"{}", "tokenizer.json": b"{ }", "chat_template.jinja": b"{{ x }}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": WEIGHTS, "model-00002-of-00002.safetensors": b"b",
        "pytorch_model.bin": WEIGHTS, "onnx/model.onnx": WEIGHTS, "README.md": b"",
        "consolidated.safetensors": WEIGHTS,
    }.items():  # fmt: skip
        stand.write(f"org/m/{name}", content)
    path = stand.fetch("org/m")
    assert sorted(p.name for p in path.iterdir()) == [
        "chat_template.jinja", "config.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
    ]  # fmt: skip
    names = [path.rpartition("/")[2] for _, path, _ in stand.hub.served.requests]
    assert names.index("model-00001-of-00002.safetensors") > names.index("tokenizer.json")


def test_progress_is_told_in_bytes_with_a_rate(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.drip = 2_000_000
    stand.fetch("org/m-GGUF")
    total = len(WEIGHTS) + 4
    assert {p.total for p in stand.seen} == {total}
    done = [p.done for p in stand.seen]
    assert done == sorted(done)
    assert done[-1] == total
    assert len(set(done)) > 3
    moving = [p for p in stand.seen if p.rate > 0]
    assert moving
    assert all(p.eta_s is not None and p.file == "m-Q8_0.gguf" for p in moving)


def test_what_is_here_already_is_not_fetched_again(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    first = stand.fetch("org/m-GGUF")
    assert stand.describe("org/m-GGUF").path == first
    assert stand.fetch("org/m-GGUF") == first
    stand.write("org/m-GGUF/README.md", b"a new revision with the same weights")
    second = stand.fetch("org/m-GGUF")
    assert second.parent != first.parent
    assert second.resolve() == first.resolve()
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == len(WEIGHTS) + 4


def test_the_librarys_own_tools_find_what_was_fetched(stand: Stand) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    gguf(stand, "Q8_0")
    path = stand.fetch("org/m-GGUF")
    found = hf_hub_download(
        "org/m-GGUF", "m-Q8_0.gguf", cache_dir=stand.cache, endpoint=stand.hub.url, token=False
    )
    assert Path(found) == path
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == len(WEIGHTS) + 4
    scanned = scan_cache_dir(stand.cache)
    assert [repo.repo_id for repo in scanned.repos] == ["org/m-GGUF"]
    assert not scanned.warnings


def test_a_quant_that_is_not_there_names_the_nearest_and_all_there_are(stand: Stand) -> None:
    gguf(stand, "Q4_K_M", "Q8_0")
    with pytest.raises(ModelNotFound, match=r"quant Q4_K_S\. The nearest is Q4_K_M\. It has: Q4_K"):
        stand.describe("org/m-GGUF", "Q4_K_S")


def test_an_empty_repository_says_so(stand: Stand) -> None:
    (stand.hub.repositories.root / "org" / "empty").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match=r"hf:org/empty is empty"):
        stand.describe("org/empty")


def test_a_repository_without_a_model_says_what_it_has(stand: Stand) -> None:
    stand.write("org/data/train.parquet", b"x")
    with pytest.raises(ModelNotFound, match=r"no \.gguf file.*1 \.parquet"):
        stand.describe("org/data")


def test_a_repository_that_does_not_exist_names_the_nearest(stand: Stand) -> None:
    gguf(stand, "Q8_0", name="Qwen/Qwen3-0.6B-GGUF")
    with pytest.raises(ModelNotFound, match=r"nearest it has is Qwen/Qwen3-0\.6B-GGUF.*HF_TOKEN"):
        stand.describe("Qwen/Qwen3-0.6b-GUFF")


def test_a_gated_repository_names_the_variable_for_a_token(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.gated, stand.hub.faults.token = {"org/m-GGUF"}, "right"
    with pytest.raises(Forbidden, match=r"gated or private.*401\. No token is set.*into HF_TOKEN"):
        stand.describe("org/m-GGUF")
    stand.variables["HF_TOKEN"] = "wrong"
    with pytest.raises(Forbidden, match=r"403\. The token there may not read it"):
        stand.describe("org/m-GGUF")
    stand.variables["HF_TOKEN"] = "right"
    assert stand.fetch("org/m-GGUF").is_file()


def test_a_token_goes_no_further_than_its_hub(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.private, stand.hub.faults.token = {"org/m-GGUF"}, "right"
    stand.variables["HF_TOKEN"] = "right"
    stand.fetch("org/m-GGUF")
    assert stand.hub.served.tokens == [""], "contents lie with somebody else"


def test_without_the_library_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"pip install 'helexa\[neuron\]'"):
        need_library()
    assert NotInstalled.lasting


def test_a_disk_without_room_is_refused_with_figures_before_anything_is_fetched(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf(stand, "Q8_0")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=cache.SPARE_BYTES + 1_000_000)
    )
    with pytest.raises(
        ServiceUnavailable, match=rf"needs 3 MB more in {stand.cache}.* has 68 MB free\. Free 2 MB"
    ) as refused:
        stand.fetch("org/m-GGUF")
    assert refused.value.extras["bytes_missing"] == len(WEIGHTS) + 4
    assert not stand.hub.served.bytes


def test_a_cache_folder_that_cannot_be_written_is_named(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.cache.write_bytes(b"a file")
    with pytest.raises(ServiceUnavailable, match=rf"folder {stand.cache} cannot be written"):
        stand.fetch("org/m-GGUF")


def test_a_hub_that_cannot_be_reached_falls_back_to_the_cache_and_says_so(stand: Stand) -> None:
    gguf(stand, "Q4_0", "Q8_0")
    path = stand.fetch("org/m-GGUF", "Q8_0")
    stand.hub.stop()
    listing = stand.describe("org/m-GGUF", "q8_0")
    assert (listing.path, listing.quant) == (path, "Q8_0")
    assert listing.note.startswith(f"from the cache {stand.cache}: {stand.hub.url} cannot be")
    assert stand.fetch("org/m-GGUF", "Q8_0") == path
    with pytest.raises(
        ServiceUnavailable,
        match=r"cannot be reached.*does not hold all of org/m-GGUF in Q4_0; it has Q8_0",
    ):
        stand.describe("org/m-GGUF", "Q4_0")


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_hub_that_is_out_of_order_is_as_good_as_none(stand: Stand, status: int) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.statuses.append(status)
    stand.hub.faults.retry_after_s = 7
    with pytest.raises(ServiceUnavailable, match=f"it answered {status}") as refused:
        stand.describe("org/m-GGUF")
    assert refused.value.retry_after_s == 7
    path = stand.fetch("org/m-GGUF")
    stand.hub.faults.statuses.append(status)
    assert stand.describe("org/m-GGUF").path == path


def test_offline_mode_asks_nobody(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    path = stand.fetch("org/m-GGUF")
    asked = len(stand.hub.served.requests)

    async def describe(source: Hub, name: str) -> Path | None:
        return (await source.describe(name, None)).path

    assert asyncio.run(describe(stand.source(offline=True), "org/m-GGUF")) == path
    with pytest.raises(ServiceUnavailable, match="HF_HUB_OFFLINE is set"):
        asyncio.run(describe(stand.source(offline=True), "org/other"))
    assert len(stand.hub.served.requests) == asked


def test_half_a_model_in_the_cache_is_not_taken_for_one(stand: Stand) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    stand.write("org/m/config.json", b"{}")
    stand.write("org/m/model.safetensors.index.json", json.dumps(index).encode())
    stand.write("org/m/model-00001-of-00002.safetensors", b"a")
    stand.write("org/m/model-00002-of-00002.safetensors", b"b")
    path = stand.fetch("org/m")
    (path / "model-00002-of-00002.safetensors").unlink()
    stand.hub.stop()
    with pytest.raises(ServiceUnavailable, match="does not hold all of"):
        stand.describe("org/m")


def test_a_hub_that_was_silent_is_not_waited_for_again_at_once(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.fetch("org/m-GGUF")
    stand.hub.faults.statuses.extend([503])

    async def twice() -> list[str]:
        source = stand.source()
        return [(await source.describe("org/m-GGUF", None)).note for _ in range(2)]

    asked = len(stand.hub.served.requests)
    assert all("it answered 503" in note for note in asyncio.run(twice()))
    assert len(stand.hub.served.requests) == asked + 1


def test_a_revision_may_be_named(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    revision = stand.describe("org/m-GGUF").revision
    assert stand.fetch(f"org/m-GGUF@{revision}").parent.name == revision
    with pytest.raises(ModelNotFound, match="org/m-GGUF has no revision no-such"):
        stand.describe("org/m-GGUF@no-such")
