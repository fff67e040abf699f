"""What is known of the main families before anything of them is loaded.

The expected figures are the models' own: from their cards and papers, worked out by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.folder import inspect_folder
from helexa.neuron.models.gguf import BadModelFile

TOOLS = "{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"


def facts(folder: Path, config: object, /, **files: object) -> ModelFacts:
    return inspect_folder(write_folder(folder / "model", config, **files), "m")


@pytest.mark.parametrize(
    ("config", "layers", "kv_elements", "context"),
    [
        (known.LLAMA_3_1_8B, 32, 32 * 2 * 8 * 128, 131_072),
        (known.QWEN2_5_7B, 28, 28 * 2 * 4 * 128, 32_768),
        (known.QWEN3_30B_A3B, 48, 48 * 2 * 4 * 128, 40_960),
        (known.QWEN3_NEXT_80B, 48, 12 * 2 * 2 * 256, 262_144),
        (known.MISTRAL_7B_V0_1, 32, 0, 32_768),
        (known.GEMMA3_4B, 34, 5 * 2 * 4 * 256, 131_072),
        (known.PHI_3_5_MINI, 32, 0, 131_072),
        (known.GPT_OSS_20B, 24, 12 * 2 * 8 * 64, 131_072),
        (known.DEEPSEEK_V3, 61, 61 * (512 + 64), 163_840),
        (known.QWEN2_5_VL_7B, 28, 28 * 2 * 4 * 128, 128_000),
        (known.QWEN2_5_OMNI, 28, 28 * 2 * 4 * 128, 32_768),
        (known.NEMOTRON_H, 8, 2 * 2 * 8 * 128, 8_192),
        (known.LFM2_1_2B, 16, 6 * 2 * 8 * 64, 128_000),
        (known.BAMBA_9B, 32, 3 * 2 * 8 * 128, 262_144),
        (known.JAMBA_V0_1, 32, 4 * 2 * 8 * 128, 262_144),
        (known.MINIMAX_TEXT_01, 80, 10 * 2 * 8 * 128, 10_240_000),
        (known.KIMI_LINEAR_48B, 27, 7 * (512 + 64), 1_048_576),
        (known.FALCON_7B, 32, 32 * 2 * 1 * 64, 2_048),
        (known.FALCON_MAMBA_7B, 64, 0, 8_192),
        (known.FALCON_H1_1_5B, 24, 24 * 2 * 2 * 128, 131_072),
        (known.EXAONE_4_32B, 64, 16 * 2 * 8 * 128, 131_072),
        (known.LLAMA_4_SCOUT, 48, 12 * 2 * 8 * 128, 10_485_760),
        (known.BGE_SMALL, 12, 0, 512),
        (known.GTE_RERANKER, 22, 0, 8_192),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_layers_cells_and_context_are_those_of_the_model(
    tmp_path: Path, config: dict[str, Any], layers: int, kv_elements: int, context: int
) -> None:
    found = facts(tmp_path, config)
    assert (found.layers, found.kv_elements, found.context_native) == (layers, kv_elements, context)


@pytest.mark.parametrize(
    ("config", "layers", "window"),
    [
        (known.MISTRAL_7B_V0_1, 32, 4096),
        (known.GEMMA3_4B, 29, 1024),
        (known.GPT_OSS_20B, 12, 128),
        (known.EXAONE_4_32B, 48, 4096),
        (known.LLAMA_4_SCOUT, 36, 8192),
        (known.QWEN2_5_7B, 0, None),
        (known.LLAMA_3_1_8B, 0, None),
        (dict(known.QWEN2_5_7B, use_sliding_window=True, max_window_layers=20), 8, 131_072),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_windows_are_counted_where_layers_have_them(
    tmp_path: Path, config: dict[str, Any], layers: int, window: int | None
) -> None:
    found = facts(tmp_path, config)
    assert (found.windowed_layers, found.sliding_window) == (layers, window)


@pytest.mark.parametrize(
    ("config", "capabilities", "unsupported"),
    [
        (known.LLAMA_3_1_8B, ("text", "tools"), ()),
        (known.GEMMA3_4B, ("text", "tools", "vision"), ()),
        (known.QWEN2_5_VL_7B, ("text", "tools", "vision"), ()),
        (known.QWEN2_5_OMNI, ("text", "tools", "vision"), ("audio",)),
        (dict(known.PHI_3_5_MINI, embd_layer={"image_embd_layer": {"x": 1},
                                              "audio_embd_layer": {"x": 1}}),
         ("text", "tools", "vision"), ("audio",)),
        (known.BGE_SMALL, ("embeddings",), ()),
        (known.GTE_RERANKER, ("rerank",), ()),
        (known.WHISPER, (), ("audio",)),
        (dict(known.GTE_RERANKER, id2label={"0": "bad", "1": "good"}), (), ("classification",)),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5",
          "is_encoder_decoder": True}, (), ()),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_a_model_can_is_known_before_it_is_loaded(
    tmp_path: Path,
    config: dict[str, Any],
    capabilities: tuple[str, ...],
    unsupported: tuple[str, ...],
) -> None:
    found = facts(tmp_path, config, chat_template_jinja=TOOLS)
    assert (found.capabilities, found.unsupported) == (capabilities, unsupported)
    assert (found.refusal is not None) == (not capabilities)


def test_speech_is_refused_in_words(tmp_path: Path) -> None:
    said = facts(tmp_path, known.WHISPER).refusal
    assert said == "it is WhisperForConditionalGeneration, which turns speech into text"


@pytest.mark.parametrize(
    ("stated", "name", "method"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "AWQ 4-bit", "awq"),
        ({"quant_method": "gptq", "bits": 8}, "GPTQ 8-bit", "gptq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8", "fp8"),
        ({"quant_method": "bitsandbytes", "_load_in_4bit": True}, "BITSANDBYTES 4-bit",
         "bitsandbytes"),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}},
         "COMPRESSED-TENSORS 4-bit", "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "MXFP4", "mxfp4"),
        (None, "BF16", None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_quantisation_is_read_from_the_config(
    tmp_path: Path, stated: object, name: str, method: str | None
) -> None:
    found = facts(tmp_path, dict(known.LLAMA_3_1_8B, quantization_config=stated))
    assert (found.quant, found.quant_method) == (name, method)


def test_quantisation_is_read_from_the_quantisers_own_file(tmp_path: Path) -> None:
    found = facts(tmp_path, known.LLAMA_3_1_8B, quantize_config_json={"bits": 4})
    assert found.quant == "GPTQ 4-bit"
    found = facts(tmp_path / "b", known.LLAMA_3_1_8B,
                  hf_quant_config_json={"quantization": {"quant_algo": "NVFP4"}})  # fmt: skip
    assert (found.quant, found.quant_method) == ("NVFP4", "modelopt")


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131_072),
        ({"type": "linear", "factor": 2.0}, 65_536),
        ({"rope_type": "dynamic", "factor": 2.0}, 65_536),
        ({"type": "linear", "factor": 0.5}, 32_768),
        ({"rope_type": "llama3", "factor": 8.0}, 32_768),
        ({"rope_type": "default"}, 32_768),
        (None, 32_768),
    ],
    ids=str,
)
def test_scaled_positions_are_what_engines_take_them_for(
    tmp_path: Path, scaling: object, context: int
) -> None:
    assert facts(tmp_path, dict(known.QWEN2_5_7B, rope_scaling=scaling)).context_native == context


def test_newer_files_state_the_scaling_for_each_kind_of_layer(tmp_path: Path) -> None:
    parameters = {
        "full_attention": {"rope_type": "yarn", "factor": 4.0,
                           "original_max_position_embeddings": 8192},
        "sliding_attention": {"rope_type": "default"},
    }  # fmt: skip
    config = dict(known.QWEN2_5_7B, rope_parameters=parameters, max_position_embeddings=8192)
    assert facts(tmp_path, config).context_native == 32_768


@pytest.mark.parametrize(
    ("stated", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_an_embedder_is_pooled_as_it_was_trained(
    tmp_path: Path, stated: object, pooling: str
) -> None:
    found = facts(tmp_path, known.BGE_SMALL, **{"1_Pooling__config_json": stated})
    assert (found.capabilities, found.pooling) == (("embeddings",), pooling)


def test_a_decoder_with_a_pooling_beside_it_is_an_embedder(tmp_path: Path) -> None:
    found = facts(tmp_path, known.QWEN3_30B_A3B, chat_template_jinja=TOOLS,
                  **{"1_Pooling__config_json": {"pooling_mode_lasttoken": True}})  # fmt: skip
    assert (found.capabilities, found.pooling) == (("embeddings",), "last")
    assert found.kv_elements


def test_an_embedders_own_bound_is_its_context(tmp_path: Path) -> None:
    found = facts(tmp_path, known.BGE_SMALL, sentence_bert_config_json={"max_seq_length": 256})
    assert found.context_native == 256
    roberta = dict(known.BGE_SMALL, model_type="xlm-roberta", max_position_embeddings=514)
    assert facts(tmp_path / "b", roberta).context_native == 512


def test_a_model_of_experts_is_known_for_one(tmp_path: Path) -> None:
    found = facts(tmp_path, known.DEEPSEEK_V3)
    assert (found.experts, found.feed_forward) == (256, max(18_432, 9 * 2048))
    assert facts(tmp_path / "b", known.LLAMA_3_1_8B).experts == 0


def test_states_of_linear_layers_are_counted_once_for_a_sequence(tmp_path: Path) -> None:
    delta = 32 * 128 * 128 + 3 * (2 * 16 * 128 + 32 * 128)
    assert facts(tmp_path, known.QWEN3_NEXT_80B).state_bytes == 4 * 36 * delta
    mamba = 3 * (8192 + 2 * 8 * 128) + 128 * 8192
    assert facts(tmp_path / "b", known.NEMOTRON_H).state_bytes == 4 * 4 * mamba
    expanded = 3 * 8192 + 16 * 8192
    assert facts(tmp_path / "c", known.JAMBA_V0_1).state_bytes == 4 * 28 * expanded
    assert facts(tmp_path / "d", known.LFM2_1_2B).state_bytes == 4 * 10 * 2 * 2048
    both = 3 * (3072 + 2 * 256) + 256 * 3072
    assert facts(tmp_path / "e", known.FALCON_H1_1_5B).state_bytes == 4 * 24 * both
    kimi = 32 * 128 * 128 + 3 * 3 * 32 * 128
    assert facts(tmp_path / "f", known.KIMI_LINEAR_48B).state_bytes == 4 * 20 * kimi
    assert facts(tmp_path / "g", known.MINIMAX_TEXT_01).state_bytes == 4 * 70 * 64 * 128 * 128


def test_reasoning_and_how_hard_come_from_the_template(tmp_path: Path) -> None:
    template = (
        "{% if reasoning_effort == 'high' or reasoning_effort in ['low'] %}{% endif %}"
        "{{ '<think></think>' }}{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    )
    found = facts(tmp_path, known.LLAMA_3_1_8B, chat_template_jinja=template)
    assert (found.effort_levels, found.thinks_first) == (("high", "low"), True)
    assert found.thinking_variable is None  # so thinking cannot be turned off
    assert "reasoning" in found.capabilities


def test_the_template_with_tools_is_taken_of_several(tmp_path: Path) -> None:
    several = [{"name": "default", "template": "{{ messages }}"},
               {"name": "tool_use", "template": TOOLS}]  # fmt: skip
    found = facts(tmp_path, known.LLAMA_3_1_8B, tokenizer_config_json={"chat_template": several})
    assert (found.chat_template, "tools" in found.capabilities) == (TOOLS, True)


def test_the_models_own_sampling_is_known(tmp_path: Path) -> None:
    stated = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": True}
    found = facts(tmp_path, known.LLAMA_3_1_8B, generation_config_json=stated)
    assert found.sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 20.0}


def test_weights_stored_twice_are_counted_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, known.LLAMA_3_1_8B)
    (folder / "consolidated.safetensors").write_bytes(known.weights(4096))
    assert inspect_folder(folder, "m").parameters == 4096


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        (None, {}, r"config\.json cannot be used: it is missing"),
        (None, {"adapter_config_json": {"base_model_name_or_path": "org/base"}},
         "adapter of org/base, not a model"),
        (None, {"model_index_json": {}}, "makes pictures"),
        ([1, 2], {}, "not a JSON object"),
        ({"model_type": "llama"} | {"num_hidden_layers": 10**30}, {},
         "num_hidden_layers is beyond all bounds, not a whole number"),
        (dict(known.LLAMA_3_1_8B, num_hidden_layers=10**9), {}, "from 0 to 4096"),
        (dict(known.LLAMA_3_1_8B, num_key_value_heads="eight"), {}, "'eight', not a whole number"),
        (dict(known.LLAMA_3_1_8B, hidden_size=-1), {}, "hidden_size is -1"),
        (dict(known.LLAMA_3_1_8B, num_hidden_layers=None), {}, None),
        (dict(known.LLAMA_3_1_8B, rope_scaling=[1]), {}, "rope_scaling is .*not an object"),
        (dict(known.LLAMA_3_1_8B, layer_types=["full_attention"] * 5000), {}, "list of 5000"),
        ({"model_type": "mystery"}, {}, "states no layers"),
        (dict(known.LLAMA_3_1_8B), {"tokenizer_config_json": {"chat_template": "x" * 1_100_000}},
         "chat template has 1100000 characters"),
        (dict(known.LLAMA_3_1_8B), {"generation_config_json": '{"temperature": "hot"}'},
         "temperature is 'hot', not a number"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_file_that_cannot_be_is_named_with_what_is_wrong(
    tmp_path: Path, config: object, files: dict[str, object], words: str | None
) -> None:
    if words is None:
        assert facts(tmp_path, config, **files).layers == 32  # the family's own default
        return
    with pytest.raises(BadModelFile, match=words):
        facts(tmp_path, config, **files)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"num_hidden_layers": ' + "9" * 100_000 + "}",
        '{"num_hidden_layers": 1e400}',
        "\x00\xff",
        "",
    ],
    ids=["arrays", "objects", "digits", "infinite", "bytes", "empty"],
)
def test_hostile_json_is_bounded(tmp_path: Path, text: str) -> None:
    write_folder(tmp_path, known.LLAMA_3_1_8B)
    (tmp_path / "config.json").write_text(text, "latin-1")
    with pytest.raises(BadModelFile, match=r"config\.json"):
        inspect_folder(tmp_path, "m")


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 1}', b'{"a": {"shape": ["x"]}}',
                                    b"[" * 100_000])  # fmt: skip
def test_a_hostile_weight_header_is_an_error_of_the_file(tmp_path: Path, header: bytes) -> None:
    write_folder(tmp_path, known.LLAMA_3_1_8B)
    data = len(header).to_bytes(8, "little") + header
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(BadModelFile, match=r"model\.safetensors"):
        inspect_folder(tmp_path, "m")
