"""A served model without a process, for what is pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.neuron.engines.base import Plan, Served
from helexa.neuron.models.facts import ModelFacts

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}{{ enable_thinking }}"


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts(
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
        chat_template=TEMPLATE,
        capabilities=("text", "tools", "reasoning"),
        thinking_variable="enable_thinking",
        heads=16,
        feed_forward=3072,
    )


@pytest.fixture
def served(facts: ModelFacts) -> Served:
    plan = Plan(context=4096, slots=4, kv_cells=16_384, embeddings=True)
    return Served(facts.model_id, facts, plan, max_output=1000)
