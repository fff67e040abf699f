"""Quantised weights and the hardware that can use them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from helexa.core.fleet import Device
from helexa.neuron.engines.base import Host
from helexa.neuron.engines.vllm.suits import unsuited
from helexa.neuron.models.facts import ModelFacts


def host(*capabilities: str | None) -> Host:
    devices = tuple(Device(n, "GPU", 24_000, c) for n, c in enumerate(capabilities))
    return Host(devices, (), 8192, 4096, 4)


@pytest.mark.parametrize(
    ("method", "capabilities", "suits"),
    [
        (None, (), True),
        (None, ("6.1",), True),
        ("awq", (), True),
        ("gptq", (), True),
        ("compressed-tensors", (), True),
        ("fp8", (), False),
        ("mxfp4", (), False),
        ("bitsandbytes", (), False),
        ("awq", ("7.0",), False),
        ("awq", ("7.5",), True),
        ("fp8", ("8.9",), True),
        ("mxfp4", ("7.5",), False),
        ("mxfp4", ("7.5", "9.0"), True),
        ("mxfp4", (None,), True),  # a device that does not say is left to vLLM
        ("something-new", ("7.0",), True),
    ],
)
def test_weights_are_refused_where_vllm_has_no_kernel_for_them(
    facts: ModelFacts, method: str | None, capabilities: tuple[str | None, ...], suits: bool
) -> None:
    quantised = replace(facts, quant_method=method, quant="THIS 4-bit")
    why = unsuited(quantised, host(*capabilities))
    assert (why is None) is suits
    if why is not None:
        assert "THIS 4-bit" in why
