"""Models without files, for what is pure."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from helexa.neuron.engines.base import Plan, Served
from helexa.neuron.models.facts import ModelFacts

SMALL = ModelFacts(
    model_id="org/model",
    path=Path("/models/m"),
    format="safetensors",
    architecture="Qwen3ForCausalLM",
    parameters=600_000_000,
    weight_bytes=640 << 20,
    layers=28,
    kv_layers=28,
    kv_heads=8,
    head_dim_k=128,
    head_dim_v=128,
    context_native=40_960,
    embedding_dim=1024,
    vocab=151_936,
    chat_template="{% for message in messages %}{{ message.content }}{% endfor %}"
    "{{ enable_thinking }}",
    capabilities=("text", "tools", "reasoning"),
    thinking_variable="enable_thinking",
    heads=16,
    feed_forward=3072,
)
"""Of 0.6B."""

GGUF = replace(SMALL, path=Path("/models/m.gguf"), format="gguf", architecture="qwen3")
"""The same for llama.cpp."""

LARGE = replace(
    SMALL,
    parameters=8_000_000_000,
    weight_bytes=16 << 30,
    layers=36,
    kv_layers=36,
    embedding_dim=4096,
    chat_template="<tool_call> <think> </think> {{ enable_thinking }}",
    think_markers=("<think>", "</think>"),
    heads=32,
    feed_forward=12_288,
    kv_elements=36 * 8 * 256,
)
"""Of 8B in bf16."""


def served_by(facts: ModelFacts) -> Served:
    """The model in four slots."""
    plan = Plan(context=4096, slots=4, kv_cells=16_384, embeddings=True)
    return Served(facts.model_id, facts, plan, max_output=1000)
