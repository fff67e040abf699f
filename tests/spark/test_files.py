from __future__ import annotations

import json
import struct

import pytest

from helexa import spark
from helexa.neuron.models.gguf import read_gguf

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)


def test_every_file_is_there_and_all_weigh_at_most_twelve_megabytes() -> None:
    paths = [spark.gguf_path(), *(spark.safetensors_dir() / name for name in FILES)]
    assert all(path.is_file() for path in paths)
    assert sum(path.stat().st_size for path in paths) <= 12_000_000


def test_the_gguf_says_what_it_is() -> None:
    file = read_gguf(spark.gguf_path())
    assert file.text("general.architecture") == "qwen3"
    assert file.integer("qwen3.context_length") == spark.CONTEXT_LENGTH
    assert file.text("tokenizer.ggml.model") == "gpt2"
    assert file.text("tokenizer.ggml.pre") == "qwen2"
    assert 2_000_000 <= sum(tensor.elements for tensor in file.tensors) <= 2_900_000


def test_both_formats_have_one_template_and_one_shape() -> None:
    file = read_gguf(spark.gguf_path())
    folder = spark.safetensors_dir()
    config = json.loads((folder / "config.json").read_text())
    assert file.text("tokenizer.chat_template") == (folder / "chat_template.jinja").read_text()
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    for key, name in {
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
    }.items():
        assert config[key] == file.integer(f"qwen3.{name}"), key
    assert config["vocab_size"] == file.length("tokenizer.ggml.tokens")


def test_both_formats_have_the_same_number_of_weights() -> None:
    path = spark.safetensors_dir() / "model.safetensors"
    with path.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    assert len(header) == len(read_gguf(spark.gguf_path()).tensors)
    assert {entry["dtype"] for entry in header.values()} == {"F16"}


def test_heads_split_evenly_over_two_ranks() -> None:
    config = json.loads((spark.safetensors_dir() / "config.json").read_text())
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        assert config[key] % 2 == 0, key


@pytest.mark.parametrize(
    "token",
    [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>",
        "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    ],
)  # fmt: skip
def test_each_marker_is_one_token(token: str) -> None:
    tokenizer = json.loads((spark.safetensors_dir() / "tokenizer.json").read_text())
    assert token in {entry["content"] for entry in tokenizer["added_tokens"]}
