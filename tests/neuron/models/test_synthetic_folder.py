"""Folders of random weights are what was asked for, and loadable by their own word."""

from __future__ import annotations

import json
from pathlib import Path

from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import Shape
from helexa.neuron.models.synthetic_folder import write_folder

SHAPE = Shape(
    layers=2, embedding=128, heads=4, kv_heads=2, head_dim=32, feed_forward=256, vocab=4096
)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_folder_is_read_as_the_shape_that_was_asked_for(tmp_path: Path) -> None:
    facts = inspect(write_folder(tmp_path / "m", SHAPE), "random/m")
    assert (facts.format, facts.layers, facts.vocab) == ("safetensors", 2, 4096)
    assert (facts.embedding_dim, facts.kv_heads, facts.head_dim_k) == (128, 2, 32)
    assert "tools" in facts.capabilities


def test_every_byte_of_a_folder_belongs_to_a_tensor_and_every_token_has_a_row(
    tmp_path: Path,
) -> None:
    data = weights(write_folder(tmp_path, SHAPE))
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert spans[0][0] == 0
    assert [span[0] for span in spans[1:]] == [span[1] for span in spans[:-1]]
    assert begin + spans[-1][1] == len(data)
    assert header["model.embed_tokens.weight"]["shape"] == [4096, 128]
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    ids = {*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])}
    assert ids == set(range(4096))


def test_the_same_seed_writes_the_same_folder_and_another_one_another(tmp_path: Path) -> None:
    one, same, other = (
        weights(write_folder(tmp_path / name, SHAPE, seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other
