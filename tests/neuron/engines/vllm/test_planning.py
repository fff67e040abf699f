"""How vLLM is laid out on a host: ranks, cells, slots; what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.neuron.engines.specimens import LARGE

from helexa.core.errors import InsufficientVram
from helexa.core.fleet import Device, DeviceReading
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.engines.vllm.options import Given
from helexa.neuron.engines.vllm.planning import make_plan, needs_of
from helexa.neuron.models.facts import ModelFacts

CPU = Host((), (), 64_000, 60_000, 16)
TOKEN = 36 * 8 * 256 * 2
"""Bytes of a cell of the model of these tests."""


def gpus(*free_mb: int, total_mb: int = 81_920) -> Host:
    devices = tuple(
        Device(index=i, name="H100", vram_total_mb=total_mb, compute_capability="9.0", kind="cuda")
        for i in range(len(free_mb))
    )
    readings = tuple(
        DeviceReading(
            index=i, vram_used_mb=total_mb - free, vram_free_mb=free, utilization_pct=0, temp_c=0
        )
        for i, free in enumerate(free_mb)
    )
    return Host(devices, readings, 256_000, 200_000, 32)


def plan(facts: ModelFacts, host: Host, *args: str, **wanted: Any) -> Plan:
    return make_plan(facts, host, wanted, Given.of(args), cpu=not host.devices)


def test_one_device_that_holds_a_full_context_is_enough(facts: ModelFacts) -> None:
    found = plan(facts, gpus(80_000, 80_000))
    assert found.devices == (0,)
    assert found.extra["tensor_parallel"] == 1
    assert found.context == facts.context_native
    assert found.kv_cells >= found.context
    assert found.memory_mb[0] <= 80_000 - 2048
    assert 0.9 < float(str(found.extra["utilization"])) <= 0.98


def test_a_model_too_large_for_one_device_is_split_over_a_power_of_two(facts: ModelFacts) -> None:
    large = replace(facts, weight_bytes=130 << 30)
    found = plan(large, gpus(80_000, 80_000, 80_000))
    assert found.devices == (0, 1)
    assert found.extra["tensor_parallel"] == 2


def test_tensor_parallel_of_the_load_is_taken_as_it_is(facts: ModelFacts) -> None:
    found = plan(facts, gpus(80_000, 80_000, 80_000, 80_000), max_devices=4)
    assert found.devices == (0, 1, 2, 3)
    assert found.extra["tensor_parallel"] == 4
    assert plan(facts, CPU, max_devices=2).extra["tensor_parallel"] == 2


def test_the_freest_and_only_allowed_devices_are_used(facts: ModelFacts) -> None:
    host = gpus(30_000, 80_000, 80_000)
    assert plan(facts, host).devices == (1,)
    assert plan(facts, host, devices=[0, 2]).devices == (2,)


def test_what_does_not_fit_is_refused_with_figures(facts: ModelFacts) -> None:
    with pytest.raises(InsufficientVram, match="MiB of device 0") as caught:
        plan(facts, gpus(12_000))
    assert int(str(caught.value.extras["needed_mb"])) > 12_000
    with pytest.raises(InsufficientVram, match="host memory"):
        plan(facts, Host((), (), 16_000, 10_000, 4))


def test_the_operators_arguments_bind_the_plan(facts: ModelFacts) -> None:
    found = plan(
        facts, gpus(80_000), "--max-model-len", "4k", "--max-num-seqs", "3", "--kv-cache-dtype",
        "fp8", "--gpu-memory-utilization", "0.5",
    )  # fmt: skip
    assert (found.context, found.slots, found.kv_type) == (4000, 3, "fp8")
    assert found.memory_mb[0] <= 81_920 // 2


def test_ranks_on_other_hosts_carry_their_share(facts: ModelFacts) -> None:
    huge = replace(facts, weight_bytes=300 << 30)
    args = ("--distributed-executor-backend", "ray", "-tp", "4", "-pp", "2")
    found = plan(huge, gpus(80_000, 80_000, 80_000, 80_000), *args)
    assert found.devices == (0, 1, 2, 3)
    assert found.memory_mb[0] < 80_000


def test_a_cpu_host_gives_at_most_half_of_what_is_left_to_the_pool(facts: ModelFacts) -> None:
    found = plan(facts, CPU)
    assert found.devices == ()
    assert found.slots == 4
    assert found.kv_cells * TOKEN < (60_000 - 16_384) * (1 << 20) / 2
    assert found.context <= found.kv_cells


def test_a_cpu_pool_has_room_for_prompts_that_may_come_again(facts: ModelFacts) -> None:
    bare, kept = plan(facts, CPU, slots=1), plan(facts, CPU, slots=1, cache_ram_mb=512)
    assert kept.kv_cells == bare.kv_cells
    assert int(str(kept.extra["kv_bytes"])) - int(str(bare.extra["kv_bytes"])) == 512 << 20


def test_ranks_share_the_cores_and_a_tiny_model_takes_one(facts: ModelFacts) -> None:
    assert plan(facts, CPU).threads == 16
    assert plan(facts, CPU, max_devices=2).threads == 8
    assert plan(replace(facts, weight_bytes=5 << 20), CPU).threads == 1


def test_more_ranks_than_kv_heads_repeat_them(facts: ModelFacts) -> None:
    shape = Plan(context=1, slots=1, kv_cells=0)
    assert needs_of(facts, shape, 8).token == TOKEN
    assert needs_of(facts, shape, 16).token == 2 * TOKEN


@given(
    free=st.lists(st.integers(4_000, 80_000), min_size=1, max_size=8),
    weights_gb=st.integers(1, 200),
    slots=st.integers(1, 256),
)
@settings(max_examples=80, deadline=None)
def test_a_plan_never_takes_more_than_is_free(free: list[int], weights_gb: int, slots: int) -> None:
    facts = replace(LARGE, weight_bytes=weights_gb << 30)
    try:
        found = plan(facts, gpus(*free), slots=slots)
    except InsufficientVram:
        return
    for index in found.devices:
        assert found.memory_mb[index] <= free[index]
    assert found.kv_cells >= min(found.context, 512)
