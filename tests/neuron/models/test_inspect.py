"""From a header to the physics of a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.gguf import BadModelFile
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import Shape, write_model
from helexa.spark import CONTEXT_LENGTH, MODEL_ID, gguf_path

from .conftest import MakeGguf

Metadata = Callable[..., dict[str, object]]


@pytest.fixture
def read(make_gguf: MakeGguf, model_metadata: Metadata) -> Callable[..., ModelFacts]:
    """Facts of a four-layer model with two KV heads of 16 elements, given further keys."""

    def facts(architecture: str, **keys: object) -> ModelFacts:
        return inspect(make_gguf(metadata=model_metadata(architecture, **keys)), "m")

    return facts


def test_the_built_in_model_has_tools_and_reasoning() -> None:
    facts = inspect(gguf_path(), MODEL_ID)
    assert facts.capabilities == ("text", "tools", "reasoning")
    assert facts.think_markers == ("<think>", "</think>")
    assert facts.thinking_variable == "enable_thinking"
    assert facts.context_native == CONTEXT_LENGTH
    assert facts.tied
    assert facts.merges > 0
    assert facts.weight_bytes < gguf_path().stat().st_size


def test_a_known_shape_has_known_figures(tmp_path: Path) -> None:
    shape = Shape(layers=3, embedding=64, heads=4, kv_heads=2, head_dim=32, feed_forward=96,
                  vocab=320, context=512, quant="F16")  # fmt: skip
    facts = inspect(write_model(tmp_path / "m.gguf", shape), "m")
    per_layer = 64 * 128 * 2 + 64 * 64 * 2 + 64 * 96 * 3
    norms = 64 * 2 + 32 * 2
    assert facts.parameters == 64 * 320 + 64 + 3 * (per_layer + norms)
    assert facts.weight_bytes == 64 * 320 * 2 + 64 * 4 + 3 * (per_layer * 2 + norms * 4)
    assert facts.elements_per_token() == 3 * 2 * (32 + 32)
    assert (facts.heads, facts.feed_forward, facts.quant, facts.vocab) == (4, 96, "F16", 320)


def test_plain_layers_all_grow(read: Callable[..., ModelFacts]) -> None:
    facts = read("llama")
    assert (facts.kv_layers, facts.windowed_layers, facts.kv_elements) == (4, 0, 4 * 2 * 32)


def test_a_window_the_engine_ignores_is_not_counted_as_saved(
    read: Callable[..., ModelFacts],
) -> None:
    facts = read("llama", attention__sliding_window=256)
    assert (facts.kv_layers, facts.windowed_layers, facts.sliding_window) == (4, 0, None)


def test_gpt_oss_windows_every_other_layer(read: Callable[..., ModelFacts]) -> None:
    facts = read("gpt-oss", attention__sliding_window=128)
    assert (facts.kv_layers, facts.windowed_layers, facts.sliding_window) == (2, 2, 128)
    assert facts.kv_elements == facts.window_elements == 2 * 2 * 32


def test_gemma_keeps_one_global_layer_in_six(read: Callable[..., ModelFacts]) -> None:
    facts = read("gemma3", attention__sliding_window=512, block_count=12)
    assert (facts.kv_layers, facts.windowed_layers) == (2, 10)


def test_a_stated_pattern_wins_over_the_architecture(read: Callable[..., ModelFacts]) -> None:
    facts = read("gemma4", attention__sliding_window=512,
                 attention__sliding_window_pattern=[1, 1, 1, 0],
                 attention__key_length=32, attention__value_length=32,
                 attention__key_length_swa=16, attention__value_length_swa=16)  # fmt: skip
    assert (facts.kv_layers, facts.windowed_layers) == (1, 3)
    assert facts.kv_elements == 2 * (32 + 32)
    assert facts.window_elements == 3 * 2 * (16 + 16)


def test_layers_without_kv_heads_keep_a_state_instead(read: Callable[..., ModelFacts]) -> None:
    facts = read("jamba", attention__head_count_kv=[0, 2, 0, 0], ssm__inner_size=128,
                 ssm__state_size=16, ssm__conv_kernel=4)  # fmt: skip
    assert (facts.kv_layers, facts.kv_elements) == (1, 2 * 32)
    assert facts.state_bytes == 4 * 3 * (3 * 128 + 16 * 128)


def test_qwen3next_attends_fully_in_every_fourth_layer(read: Callable[..., ModelFacts]) -> None:
    facts = read("qwen3next", block_count=8, ssm__inner_size=64, ssm__state_size=16,
                 ssm__group_count=2, ssm__conv_kernel=4)  # fmt: skip
    assert facts.kv_layers == 2
    assert facts.state_bytes == 4 * 6 * (3 * (64 + 2 * 2 * 16) + 16 * 64)


def test_a_model_without_attention_has_no_growing_cache(read: Callable[..., ModelFacts]) -> None:
    assert read("mamba", attention__head_count=0).elements_per_token() == 0


def test_latent_attention_stores_no_values(read: Callable[..., ModelFacts]) -> None:
    facts = read("deepseek2", attention__head_count_kv=1, attention__key_length=576,
                 attention__value_length=512, attention__key_length_mla=192)  # fmt: skip
    assert facts.kv_elements == 4 * 576


def test_layers_that_share_a_cache_have_none_of_their_own(
    read: Callable[..., ModelFacts],
) -> None:
    assert read("gemma3n", attention__shared_kv_layers=1).kv_layers == 3


def test_the_widest_activation_of_experts_is_of_those_in_use(
    read: Callable[..., ModelFacts],
) -> None:
    facts = read("qwen3moe", feed_forward_length=96, expert_count=64, expert_used_count=8,
                 expert_feed_forward_length=48)  # fmt: skip
    assert (facts.experts, facts.feed_forward) == (64, 8 * 48)


@pytest.mark.parametrize(("pooling", "capability"), [(1, "embeddings"), (3, "embeddings"),
                                                     (4, "rerank"), (0, "text")])  # fmt: skip
def test_pooling_decides_what_a_model_is_for(
    read: Callable[..., ModelFacts], pooling: int, capability: str
) -> None:
    assert read("qwen3", pooling_type=pooling).capabilities == (capability,)


def test_an_encoder_embeds_and_has_no_cache(read: Callable[..., ModelFacts]) -> None:
    facts = read("bert", attention__causal=False)
    assert facts.capabilities == ("embeddings",)
    assert facts.elements_per_token() == 0


def test_a_model_sees_only_with_its_projector(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    template = "{% if x.image_url %}<|image_pad|>{% endif %}"
    metadata = model_metadata("qwen2vl") | {"tokenizer.chat_template": template}
    path = make_gguf(metadata=metadata)
    assert "vision" not in inspect(path, "m").capabilities
    projector = make_gguf("mmproj-model.gguf", metadata={"general.architecture": "clip"})
    facts = inspect(path, "m")
    assert "vision" in facts.capabilities
    assert facts.projector == projector
    assert facts.files == (path, projector)


def test_a_projector_belongs_to_the_model_whose_width_it_projects_to(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    path = make_gguf(metadata=model_metadata("qwen2vl"))
    width = inspect(path, "m").embedding_dim
    of_another = {"general.architecture": "clip", "clip.vision.projection_dim": width + 8}
    make_gguf("mmproj-a.gguf", metadata=of_another)
    assert inspect(path, "m").projector is None
    own = make_gguf("mmproj-b.gguf", metadata={**of_another, "clip.vision.projection_dim": width})
    assert inspect(path, "m").projector == own


def test_a_projector_that_is_cut_short_makes_no_model_blind_in_silence(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    path = make_gguf(metadata=model_metadata("qwen2vl"))
    width = inspect(path, "m").embedding_dim
    clip = {"general.architecture": "clip", "clip.vision.projection_dim": width}
    cut = make_gguf("mmproj-a.gguf", metadata=clip)
    os.truncate(cut, 100)
    with pytest.raises(BadModelFile, match=r"mmproj-a\.gguf is truncated"):
        inspect(path, "m")
    whole = make_gguf("mmproj-b.gguf", metadata=clip)
    assert inspect(path, "m").projector == whole


def test_a_model_that_is_called_a_projector_is_none(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    path = make_gguf(metadata=model_metadata("qwen2vl"))
    make_gguf("mmproj-a.gguf", metadata=model_metadata("qwen2"))
    assert inspect(path, "m").projector is None


def test_an_encoder_of_sound_makes_no_model_see(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    path = make_gguf(metadata=model_metadata("qwen2"))
    metadata = {"general.architecture": "clip", "clip.has_vision_encoder": False}
    hears = make_gguf("mmproj-a.gguf", metadata=metadata)
    facts = inspect(path, "m")
    assert (facts.projector, "vision" in facts.capabilities) == (hears, False)


def test_a_projector_alone_is_not_a_model(make_gguf: MakeGguf) -> None:
    with pytest.raises(BadModelFile, match="not a language model: clip"):
        inspect(make_gguf(metadata={"general.architecture": "clip"}), "m")


def test_the_quant_is_the_files_own_name_or_its_heaviest_type(
    make_gguf: MakeGguf, model_metadata: Metadata
) -> None:
    tensors = {"a": ((64, 64), "Q8_0"), "b": ((8,), "F32")}
    named = model_metadata("llama") | {"general.file_type": 15}
    assert inspect(make_gguf("n.gguf", metadata=named, tensors=tensors), "m").quant == "Q4_K_M"
    unnamed = make_gguf("u.gguf", metadata=model_metadata("llama"), tensors=tensors)
    assert inspect(unnamed, "m").quant == "Q8_0"
