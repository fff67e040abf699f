"""The header reader: what it finds, and how it refuses what no real file is."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helexa.neuron.models.gguf import BadModelFile, Counted, Gguf, read_gguf
from helexa.neuron.models.synthetic import Shape, string, write_model
from helexa.spark import gguf_path
from helexa.wire import errors as wire

from .conftest import MakeGguf

TINY = Shape(layers=2, embedding=64, heads=2, kv_heads=1, head_dim=32, feed_forward=96, vocab=300)


def test_the_built_in_model_is_read_whole() -> None:
    header = read_gguf(gguf_path())
    assert header.text("general.architecture") == "qwen3"
    assert header.length("tokenizer.ggml.tokens") == header.tensors[0].shape[1]
    assert sum(t.size for t in header.tensors) <= gguf_path().stat().st_size


def test_a_large_vocabulary_is_counted_and_not_kept(tmp_path: Path) -> None:
    path = write_model(tmp_path / "wide.gguf", Shape(layers=1, embedding=32, vocab=20_000))
    header = read_gguf(path)
    assert header.metadata["tokenizer.ggml.tokens"] == Counted(20_000)
    assert header.metadata["tokenizer.ggml.token_type"] == Counted(20_000)
    assert header.text("tokenizer.chat_template")


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_0"])
def test_tensor_sizes_add_up_to_the_file(tmp_path: Path, quant: str) -> None:
    path = write_model(
        tmp_path / "m.gguf",
        Shape(
            layers=2,
            embedding=64,
            heads=2,
            kv_heads=1,
            head_dim=32,
            feed_forward=96,
            vocab=300,
            quant=quant,
        ),
    )
    last = max(read_gguf(path).tensors, key=lambda t: t.offset)
    header_bytes = path.stat().st_size - (last.offset + -(-last.size // 32) * 32)
    assert 0 < header_bytes < 64_000


@pytest.mark.parametrize("size", [0, 3, 4, 100, 100_000])
def test_a_file_that_somebody_is_copying_may_become_whole(tmp_path: Path, size: int) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf_path().read_bytes()[:size])
    with pytest.raises(BadModelFile, match="truncated") as found:
        read_gguf(file)
    assert not found.value.lasting
    assert wire.status_of(found.value) == 503
    assert wire.retry_after_s(found.value)


def test_a_file_that_is_no_model_will_not_be_one_later(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"<html>Not Found</html>" * 100)
    with pytest.raises(BadModelFile, match="does not begin with GGUF") as found:
        read_gguf(file)
    assert found.value.lasting
    assert (wire.status_of(found.value), found.value.code) == (400, "unsupported_operation")
    assert wire.retry_after_s(found.value) is None


def test_a_truncated_file_says_what_it_needs_and_has(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", TINY)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadModelFile, match=rf"truncated.*need {whole} bytes.*has {whole - 1000}"):
        read_gguf(path)


@pytest.mark.parametrize("size", [0, 3, 4, 10, 24, 100, 4000])
def test_a_file_cut_inside_its_header_is_refused(tmp_path: Path, size: int) -> None:
    path = write_model(tmp_path / "m.gguf", TINY)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadModelFile, match=r"truncated|does not begin"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "metadata pairs"),
        (b"GGUF" + struct.pack("<IQQ", 3, 900_000, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 50) + bytes(64), "a key"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", 77) + bytes(99),
         "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k")
         + struct.pack("<IIQ", 9, 9, 1) + bytes(99), "unknown type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k")
         + struct.pack("<IIQ", 9, 8, 1 << 44) + bytes(99), "strings of an array"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string("t") + struct.pack("<I", 9) + bytes(99),
         "9 dimensions"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string("t")
         + struct.pack("<IQIQ", 1, 32, 4, 0) + bytes(99), "unknown type 4"),
    ],
)  # fmt: skip
def test_absurd_headers_are_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile, match=reason):
        read_gguf(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"nowhere\.gguf.*No such file"):
        read_gguf(tmp_path / "nowhere.gguf")


def test_an_alignment_that_is_no_power_of_two_is_refused(make_gguf: MakeGguf) -> None:
    with pytest.raises(BadModelFile, match="alignment is 33"):
        read_gguf(make_gguf(metadata={"general.alignment": 33}))


def test_version_two_is_read(make_gguf: MakeGguf) -> None:
    assert read_gguf(make_gguf(version=2)).version == 2


def test_shards_are_read_as_one_model(make_gguf: MakeGguf) -> None:
    make_gguf("m-00001-of-00002.gguf", tensors={"token_embd.weight": ((64, 8), "F32")})
    second = make_gguf(
        "m-00002-of-00002.gguf",
        metadata={"split.no": 1},
        tensors={"output.weight": ((64, 8), "F32")},
    )
    header = read_gguf(second)
    assert [t.name for t in header.tensors] == ["token_embd.weight", "output.weight"]
    assert len(header.paths) == 2
    assert header.text("general.architecture") == "qwen3"


def test_a_missing_shard_is_named(make_gguf: MakeGguf) -> None:
    path = make_gguf("m-00001-of-00003.gguf")
    with pytest.raises(BadModelFile, match=r"m-00002-of-00003\.gguf is missing: shard 2 of 3"):
        read_gguf(path)


def test_per_layer_values_come_from_a_list_or_one_number() -> None:
    header = Gguf((), 3, {"one": 4, "two": [1, 2, 3]}, ())
    assert header.per_layer("one", 3) == [4, 4, 4]
    assert header.per_layer("two", 5) == [1, 2, 3, 3, 3]
    assert header.per_layer("none", 2, 9) == [9, 9]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 5000), value=st.binary(min_size=1, max_size=12))
def test_no_damage_to_a_header_escapes_as_anything_but_a_refusal(
    tmp_path: Path, position: int, value: bytes
) -> None:
    original = tmp_path / "sound.gguf"
    if not original.exists():
        write_model(original, TINY)
    content = bytearray(original.read_bytes())
    content[position : position + len(value)] = value
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with contextlib.suppress(BadModelFile):
        read_gguf(path)
