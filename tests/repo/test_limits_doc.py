from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.neuron.engines.specimens import GGUF

from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.limits import derive
from helexa.neuron.plan import Wanted, fit, kv_bytes, predict_memory, room_of
from helexa.neuron.settings import ContextLimitSettings

DOC = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text()
QWEN = replace(
    GGUF,
    model_id="Qwen/Qwen3-1.7B",
    parameters=1_720_574_976,
    weight_bytes=1_828_000_000,
    embedding_dim=2048,
    feed_forward=6144,
    tied=True,
    embedding_bytes=330_000_000,
    merges=151_387,
)
HOST = Host(devices=(), readings=(), memory_total_mb=16_384, memory_free_mb=12_000, cores=4)


def planned(prefill_tok_s: float) -> Plan:
    return fit(QWEN, HOST, Wanted(prefill_tok_s=prefill_tok_s))


def said(number: float) -> bool:
    return f"{int(number):,}" in DOC


def test_what_a_token_costs_is_as_the_page_says() -> None:
    assert said(QWEN.elements_per_token())
    one = kv_bytes(QWEN, context=256, slots=1, kv_type="f16", unified=True, batch=512) / 256
    assert said(one)


def test_the_memory_of_the_worked_model_is_as_the_page_says() -> None:
    plan = planned(800)
    assert plan.slots == 4
    assert said(plan.kv_cells)
    assert said(room_of(16_384, 12_000, 2048))
    estimate = predict_memory(
        QWEN, context=plan.kv_cells, slots=4, kv_type="f16", unified=True, batch=512
    )
    parts = (estimate.weights_mb, estimate.kv_mb, estimate.compute_mb, estimate.total_mb)
    assert all(map(said, parts))


@pytest.mark.parametrize("rate", [800.0, 60.0])
def test_the_limits_of_the_worked_model_are_as_the_page_says(rate: float) -> None:
    limit = derive(QWEN, planned(rate), ContextLimitSettings(), rate)
    sentence = f"`context` {limit.context:,}, `output` {limit.output:,}, `input` {limit.input:,}"
    assert sentence in DOC
