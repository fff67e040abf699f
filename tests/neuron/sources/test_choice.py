"""Which files of a repository are the model, by name alone."""

from __future__ import annotations

import pytest

from helexa.core.errors import ModelNotFound
from helexa.neuron.sources.choice import choose_files, quant_in

SHARDS = ["big/m-Q8_0-00001-of-00002.gguf", "big/m-Q8_0-00002-of-00002.gguf"]
GGUF = [
    "README.md", "imatrix.gguf", "m-Q4_K_M.gguf", "m-UD-Q2_K_XL.gguf", "m-BF16.gguf",
    "mmproj-m-F32.gguf", "mmproj-m-F16.gguf", *SHARDS,
]  # fmt: skip
FOLDER = [
    "README.md", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
    "tokenizer_config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "consolidated.safetensors", "pytorch_model.bin",
    "onnx/model.onnx", "original/params.json", "consolidated.safetensors.index.json",
    "training_args.bin", ".gitattributes",
]  # fmt: skip


@pytest.mark.parametrize(("name", "quant"), [
    ("Qwen3-0.6B-Q8_0.gguf", "Q8_0"),
    ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
    ("Q4_K_M/gemma-00001-of-00003.gguf", "Q4_K_M"),
    ("m-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
    ("m.fp16.gguf", "FP16"),
    ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
    ("model.gguf", None),
])  # fmt: skip
def test_the_quant_is_read_from_the_files_name(name: str, quant: str | None) -> None:
    assert quant_in(name) == quant


@pytest.mark.parametrize(("asked", "first"), [
    ("Q4_K_M", "m-Q4_K_M.gguf"),
    ("q4_k_m", "m-Q4_K_M.gguf"),
    ("q4-k-m", "m-Q4_K_M.gguf"),
    ("Q2_K_XL", "m-UD-Q2_K_XL.gguf"),
    ("bf16", "m-BF16.gguf"),
    ("m-BF16.gguf", "m-BF16.gguf"),
    ("q8_0", SHARDS[0]),
    (None, "m-Q4_K_M.gguf"),
])  # fmt: skip
def test_a_quant_is_found_however_it_is_written(asked: str | None, first: str) -> None:
    assert choose_files("org/m", GGUF, asked).first == first


def test_shards_come_in_order_after_the_projector_that_goes_with_them() -> None:
    choice = choose_files("org/m", list(reversed(GGUF)), "Q8_0")
    assert choice.files == ("mmproj-m-F16.gguf", *SHARDS)
    assert choice.quants == ("Q8_0", "BF16", "Q4_K_M", "UD-Q2_K_XL")


def test_a_quant_that_is_not_there_names_the_nearest_and_all_there_are() -> None:
    with pytest.raises(
        ModelNotFound, match=r"no file of quant Q4_K_S\. The nearest is Q4_K_M\..*Q8_0, BF16"
    ):
        choose_files("org/m", GGUF, "Q4_K_S")


def test_a_shard_that_is_missing_is_named() -> None:
    with pytest.raises(ModelNotFound, match=r"1 of the 2 shards.*missing: 2"):
        choose_files("org/m", SHARDS[:1], None)


def test_a_safetensors_folder_is_what_an_engine_needs_and_no_copies_of_the_weights() -> None:
    assert choose_files("org/m", FOLDER, None).files == (
        "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    )  # fmt: skip


def test_of_both_formats_the_quant_decides() -> None:
    both = [*FOLDER, "m-Q8_0.gguf"]
    assert choose_files("org/m", both, None).first is None
    assert choose_files("org/m", both, "Q8_0").files == ("m-Q8_0.gguf",)


@pytest.mark.parametrize(("names", "words"), [
    ([], "is empty"),
    (["README.md", "pytorch_model.bin", "a.bin"], r"2 \.bin, 1 \.md.*Only these two"),
    (["model.safetensors"], "no config.json"),
    (["adapter_model.safetensors", "config.json"], "no .gguf file"),
])  # fmt: skip
def test_what_is_no_model_says_so_with_what_is_there(names: list[str], words: str) -> None:
    with pytest.raises(ModelNotFound, match=words):
        choose_files("org/m", names, None)
