"""A safetensors model without files, for what is pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.neuron.models.facts import ModelFacts

TEMPLATE = "<tool_call> <think> </think> {{ enable_thinking }}"


@pytest.fixture
def facts() -> ModelFacts:
    """A model of 8B in bf16."""
    return ModelFacts(
        model_id="org/model",
        path=Path("/models/m"),
        format="safetensors",
        architecture="Qwen3ForCausalLM",
        parameters=8_000_000_000,
        weight_bytes=16 << 30,
        layers=36,
        kv_layers=36,
        kv_heads=8,
        head_dim_k=128,
        head_dim_v=128,
        context_native=40_960,
        embedding_dim=4096,
        vocab=151_936,
        chat_template=TEMPLATE,
        capabilities=("text", "tools", "reasoning"),
        think_markers=("<think>", "</think>"),
        thinking_variable="enable_thinking",
        heads=32,
        feed_forward=12_288,
        kv_elements=36 * 8 * 256,
    )
