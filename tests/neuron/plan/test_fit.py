"""Does it fit, where, with how many cells; and what would, when it does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.core.errors import InsufficientVram
from helexa.core.fleet import Device, DeviceReading
from helexa.neuron.engines.base import Host
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan import HOST, Room, Wanted, fit, room_of

GIB = 1 << 30


def model(weights: int = 16 * GIB, native: int = 32_768) -> ModelFacts:
    """Shaped like an 8 B model: 128 KiB of f16 KV per token."""
    return ModelFacts(
        model_id="m", path=Path("m.gguf"), format="gguf", architecture="llama",
        parameters=weights // 2, weight_bytes=weights, layers=32, kv_layers=32, kv_heads=8,
        head_dim_k=128, head_dim_v=128, context_native=native, embedding_dim=4096, vocab=128_000,
        heads=32, feed_forward=14_336, embedding_bytes=GIB,
    )  # fmt: skip


def gpu_host(*free_mb: int, total_mb: int = 81_920, memory_mb: int = 64_000) -> Host:
    devices = tuple(Device(n, "gpu", total_mb) for n in range(len(free_mb)))
    readings = tuple(DeviceReading(n, total_mb - f, f) for n, f in enumerate(free_mb))
    return Host(devices, readings, memory_mb, memory_mb, 16)


def cpu_host(free_mb: int, total_mb: int = 64_000) -> Host:
    return Host((Device(0, "cpu", total_mb, kind="cpu"),), (DeviceReading(0, 0, free_mb),),
                total_mb, free_mb, 8)  # fmt: skip


def test_a_large_device_gets_every_slot_at_full_context() -> None:
    plan = fit(model(), gpu_host(80_000), Wanted())
    assert (plan.devices, plan.slots, plan.context) == ((0,), 8, 32_768)
    assert plan.kv_cells == 8 * 32_768
    assert plan.gpu_layers == 33
    assert plan.tensor_split == ()


def test_cells_shrink_before_the_context_does() -> None:
    plan = fit(model(), gpu_host(26_000), Wanted())
    assert plan.context == 32_768
    assert 32_768 <= plan.kv_cells < 8 * 32_768
    tighter = fit(model(), gpu_host(20_000), Wanted())
    assert tighter.context == tighter.kv_cells < 32_768


def test_the_freest_device_is_taken_when_one_is_enough() -> None:
    assert fit(model(GIB), gpu_host(20_000, 70_000), Wanted(ctx=4096)).devices == (1,)


def test_what_one_device_cannot_hold_is_split_by_what_is_free() -> None:
    plan = fit(model(40 * GIB), gpu_host(40_000, 20_000), Wanted(ctx=8192, slots=1))
    assert plan.devices == (0, 1)
    assert plan.tensor_split == pytest.approx((0.679, 0.321), abs=0.01)
    assert plan.memory_mb[0] > plan.memory_mb[1]


def test_the_tightest_device_decides() -> None:
    with pytest.raises(InsufficientVram) as refused:
        fit(model(40 * GIB), gpu_host(40_000, 4000), Wanted(ctx=8192, slots=1))
    assert refused.value.extras["device"] in (0, 1)


def test_only_the_devices_asked_for_are_used() -> None:
    host = gpu_host(70_000, 60_000, 50_000)
    assert fit(model(GIB), host, Wanted(devices=(2,))).devices == (2,)
    limited = fit(model(90 * GIB), host, Wanted(ctx=4096, max_devices=2, slots=1))
    assert limited.devices == (0, 1)
    with pytest.raises(InsufficientVram):
        fit(model(90 * GIB), host, Wanted(ctx=4096, max_devices=1, slots=1))


def test_headroom_is_left_on_every_device() -> None:
    plan = fit(model(), gpu_host(26_000), Wanted())
    assert plan.memory_mb[0] <= 26_000 - 2048
    roomier = fit(model(), gpu_host(26_000), Wanted(), Room(headroom_mb=0))
    assert roomier.kv_cells > plan.kv_cells


def test_a_small_place_gives_up_a_tenth() -> None:
    assert room_of(1000, 600, 2048) == 500
    assert room_of(80_000, 70_000, 2048) == 67_952
    assert room_of(1000, 50, 2048) == 0


def test_a_cpu_host_keeps_half_of_what_the_weights_leave_for_others() -> None:
    plan = fit(model(GIB), cpu_host(20_000), Wanted())
    assert plan.devices == ()
    assert plan.gpu_layers == 0
    assert plan.threads == 8
    assert 9000 < plan.memory_mb[HOST] < 12_000
    asked = fit(model(GIB), cpu_host(20_000), Wanted(ctx=32_768, slots=4))
    assert asked.kv_cells == 4 * 32_768


def test_a_slow_host_does_not_plan_a_context_it_cannot_prefill() -> None:
    plan = fit(model(GIB), cpu_host(60_000), Wanted(prefill_tok_s=50))
    assert plan.context == 5888
    assert fit(model(GIB), cpu_host(60_000), Wanted(prefill_tok_s=50, ctx=8192)).context == 8192


def test_layers_left_on_the_cpu_take_host_memory() -> None:
    whole = fit(model(), gpu_host(60_000), Wanted(ctx=4096, slots=1))
    half = fit(model(), gpu_host(60_000), Wanted(ctx=4096, slots=1, gpu_layers=16))
    assert half.memory_mb[0] < whole.memory_mb[0]
    assert half.memory_mb[HOST] > whole.memory_mb[HOST] + 6000


def test_an_earlier_measurement_corrects_the_prediction() -> None:
    plain = fit(model(), gpu_host(80_000), Wanted(ctx=4096, slots=1))
    taught = fit(model(), gpu_host(80_000), Wanted(ctx=4096, slots=1), Room(correction=1.1))
    assert taught.memory_mb[0] > plain.memory_mb[0] * 1.05


def refusal(facts: ModelFacts, host: Host, wanted: Wanted) -> InsufficientVram:
    with pytest.raises(InsufficientVram) as refused:
        fit(facts, host, wanted)
    return refused.value


def would_fit(facts: ModelFacts, host: Host, wanted: Wanted, error: InsufficientVram) -> bool:
    nearest = error.extras["nearest"]
    assert isinstance(nearest, dict)
    fit(facts, host, msgspec.structs.replace(wanted, **nearest))
    return True


def test_a_refusal_gives_the_figures() -> None:
    error = refusal(model(), gpu_host(10_000), Wanted())
    assert error.extras["device"] == 0
    assert error.extras["usable_mb"] == 10_000 - 2048
    assert error.retry_after_s
    for figure in (str(error.extras["needed_mb"]), "16384 MiB of weights", "10000 MiB are free"):
        assert figure in error.message


@pytest.mark.parametrize(("free_mb", "wanted", "expected"), [
    (21_500, Wanted(ctx=32_768, slots=1), {"kv_type", "ctx"}),
    (18_900, Wanted(ctx=32_768, slots=1), {"ctx"}),
    (12_000, Wanted(ctx=32_768, slots=1), {"gpu_layers", "ctx"}),
])  # fmt: skip
def test_the_nearest_thing_really_fits(free_mb: int, wanted: Wanted, expected: set[str]) -> None:
    error = refusal(model(), gpu_host(free_mb), wanted)
    assert set(error.extras["nearest"]) == expected  # type: ignore[call-overload]
    assert would_fit(model(), gpu_host(free_mb), wanted, error)
    assert "It would fit with" in error.message


def test_when_nothing_fits_it_says_so() -> None:
    error = refusal(model(), cpu_host(8000), Wanted(ctx=1024))
    assert error.extras["nearest"] == {}
    assert "smaller quantisation" in error.message


@settings(max_examples=150, deadline=None)
@given(
    free=st.lists(st.integers(0, 80_000), max_size=3),
    memory=st.integers(500, 64_000),
    weights=st.integers(1, 60_000),
    ctx=st.none() | st.integers(512, 32_768),
    slots=st.none() | st.integers(1, 16),
    unified=st.booleans(),
    kv_type=st.sampled_from(["f16", "q8_0", "q4_0"]),
)
def test_a_plan_never_needs_more_than_is_free(
    free: list[int], memory: int, weights: int, ctx: int | None, slots: int | None,
    unified: bool, kv_type: str,
) -> None:  # fmt: skip
    facts = model(weights << 20)
    host = gpu_host(*free, memory_mb=memory) if free else cpu_host(memory, memory)
    wanted = Wanted(ctx=ctx, slots=slots, unified=unified, kv_type=kv_type)
    try:
        plan = fit(facts, host, wanted)
    except InsufficientVram as error:
        if error.extras["nearest"]:
            would_fit(facts, host, wanted, error)
        return
    for index, needed in plan.memory_mb.items():
        assert needed <= (memory if index == HOST else free[index])
    assert plan.context >= (ctx or 512)
    assert plan.kv_cells >= plan.context * (1 if unified else plan.slots)
    assert slots is None or plan.slots == slots
