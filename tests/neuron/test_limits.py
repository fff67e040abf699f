"""The limit a node derives for itself, and that advertised, enforced and servable agree."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from helexa.core.errors import ContextLengthExceeded
from helexa.core.fleet import Limit
from helexa.neuron.engines.base import Plan
from helexa.neuron.limits import (
    MINIMAL_PROMPT,
    FreeMemory,
    PrefillRate,
    check_prompt,
    check_request,
    derive,
    floors,
    needs_count,
    servable,
    steady,
)
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.settings import ContextLimitSettings

SETTINGS = ContextLimitSettings()
ROOMY = FreeMemory({0: 8000}, {0: 1500})


def facts(native: int = 40_960) -> ModelFacts:
    return ModelFacts(
        model_id="m", path=Path("m.gguf"), format="gguf", architecture="qwen3",
        parameters=1, weight_bytes=1, layers=28, kv_layers=28, kv_heads=8, head_dim_k=128,
        head_dim_v=128, context_native=native, embedding_dim=1024, vocab=100,
    )  # fmt: skip


def plan(context: int) -> Plan:
    return Plan(context=context, slots=4, kv_cells=4 * context)


def test_the_smallest_of_three_wins() -> None:
    assert derive(facts(40_960), plan(100_000), SETTINGS, 800).context == 40_960
    assert derive(facts(100_000), plan(20_000), SETTINGS, 800).context == 20_000
    assert derive(facts(200_000), plan(200_000), SETTINGS, 100).context == 11_776


def test_input_and_output_make_up_the_context() -> None:
    assert derive(facts(), plan(40_960), SETTINGS, 800) == Limit(40_960, 32_768, 8192)


def test_a_small_context_reserves_a_quarter_for_the_answer() -> None:
    assert derive(facts(8192), plan(8192), SETTINGS, 800) == Limit(8192, 6144, 2048)


def test_an_operators_cap_only_lowers() -> None:
    assert derive(facts(), plan(40_960), SETTINGS, 800, 1000) == Limit(9192, 1000, 8192)
    assert derive(facts(8192), plan(8192), SETTINGS, 800, 10**9).input == 6144


def test_a_slow_host_still_serves_short_prompts() -> None:
    assert derive(facts(), plan(40_960), SETTINGS, 0.5).context == 512


def test_speed_does_not_matter_when_the_limit_is_off() -> None:
    off = msgspec.structs.replace(SETTINGS, enabled=False)
    assert derive(facts(), plan(40_960), off, 0.5).context == 40_960


@given(native=st.integers(1, 10**6), fits=st.integers(1, 10**6), rate=st.floats(0.01, 1e5),
       cap=st.none() | st.integers(1, 10**6), reserve=st.integers(0, 10**5))  # fmt: skip
def test_a_limit_is_always_within_what_fits_and_adds_up(
    native: int, fits: int, rate: float, cap: int | None, reserve: int
) -> None:
    settings = msgspec.structs.replace(SETTINGS, output_reserve_tokens=reserve)
    limit = derive(facts(native), plan(fits), settings, rate, cap)
    assert limit.context == limit.input + limit.output <= min(native, fits)
    assert limit.input >= 1
    assert cap is None or limit.input <= cap


def test_a_limit_does_not_move_with_every_measurement() -> None:
    advertised = Limit(10_000, 7500, 2500)
    assert steady(advertised, Limit(10_900, 8175, 2725)) is advertised
    assert steady(advertised, Limit(8000, 6000, 2000)).context == 8000


def test_the_refusal_names_the_limit_that_is_enforced() -> None:
    limit = Limit(8192, 6144, 2048)
    assert check_prompt(6144, limit) is None
    refusal = check_prompt(6145, limit)
    assert isinstance(refusal, ContextLengthExceeded)
    assert "maximum context length is 6144 tokens" in refusal.message
    assert refusal.extras == {"prompt_len": 6145, "max": 6144}


def test_a_short_body_needs_no_count() -> None:
    assert not needs_count(6144, 6144, None)
    assert not needs_count(512, 6144, 512)
    assert needs_count(513, 6144, 512)
    assert needs_count(6145, 6144, None)


def test_many_short_inputs_need_no_count_but_for_their_grant() -> None:
    assert not needs_count(60_000, 512, None, longest=400)
    assert needs_count(60_000, 512, None, longest=600)
    assert needs_count(60_000, 512, 10_000, longest=400)


def test_a_model_that_answers_nothing_reads_a_whole_context() -> None:
    embedder = replace(facts(2048), capabilities=("embeddings",))
    assert derive(embedder, plan(2048), SETTINGS, 800) == Limit(2048, 2048, 0)
    ranking = replace(plan(2048), rerank=True)
    assert derive(facts(2048), ranking, SETTINGS, 800) == Limit(2048, 2048, 0)


def test_servable_is_the_check_requests_meet() -> None:
    limit = Limit(8192, 6144, 2048)
    assert servable(limit, ROOMY).ok
    low = FreeMemory({0: 800}, {0: 1500})
    assert (servable(limit, low).ok, servable(limit, low).reason) == (False, "insufficient_vram")
    for memory in (ROOMY, low):
        refusal = check_request(MINIMAL_PROMPT, limit, memory)
        assert servable(limit, memory).ok == (refusal is None)


def test_memory_down_to_its_floor_serves_and_so_does_memory_that_nobody_could_read() -> None:
    limit = Limit(8192, 6144, 2048)
    for free, ok in (({0: 1500}, True), ({0: 1499}, False), ({}, True)):
        assert servable(limit, FreeMemory(free, {0: 1500})).ok is ok


def test_what_may_load_may_serve() -> None:
    # Planning leaves a tenth of a small place free; the floor is half of that.
    assert floors({-1: 2000, 0: 80_000}, SETTINGS) == {-1: 100, 0: 1500}
    assert floors({0: 80_000}, SETTINGS, 4000) == {0: 4000}


def test_the_rate_is_the_bootstrap_until_something_is_measured() -> None:
    rate = PrefillRate(800)
    rate.observe(10, 5.0)
    assert (rate.tok_s, rate.measured) == (800, False)
    rate.observe(1000, 2.0)
    assert (rate.tok_s, rate.measured) == (500, True)


def test_long_prompts_outweigh_short_ones_and_stalls_are_forgotten() -> None:
    rate = PrefillRate(800)
    for _ in range(20):
        rate.observe(100, 1.0)
    rate.observe(20_000, 20.0)
    assert rate.tok_s > 500
    rate.observe(1000, 60.0)
    for _ in range(10):
        rate.observe(20_000, 20.0)
    assert rate.tok_s == pytest.approx(1000, rel=0.02)
