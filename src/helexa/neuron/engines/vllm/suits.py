"""Which quantised weights vLLM can use on which hardware; pure.

Found out here, a model is refused in words before its download; found out by vLLM, after a minute
of starting. The figures are vLLM's own: ``get_min_capability`` of its quantisations, and the x86
column of its table of supported hardware. What is not listed is left to vLLM.
"""

from __future__ import annotations

from helexa.neuron.engines.base import Host
from helexa.neuron.models.facts import ModelFacts

LEAST: dict[str, float] = {
    "awq": 7.5,
    "fp8": 7.5,
    "torchao": 7.5,
    "fbgemm_fp8": 8.0,
    "experts_int8": 8.0,
    "mxfp4": 8.0,
    "fp_quant": 10.0,
}
"""Least compute capability of a GPU by ``quant_method``."""
GPUS_ONLY = frozenset(
    {"fp8", "fbgemm_fp8", "experts_int8", "mxfp4", "fp_quant", "modelopt", "bitsandbytes"}
)
"""Without a kernel for CPUs."""


def unsuited(facts: ModelFacts, host: Host) -> str | None:
    """Why the weights are of no use on ``host``; None when nothing stands against them."""
    method = facts.quant_method
    if method is None:
        return None
    gpus = [device for device in host.devices if device.kind != "cpu"]
    if not gpus:
        if method in GPUS_ONLY:
            return f"vLLM computes {facts.quant} weights on GPUs only, and this host has none"
        return None
    least = LEAST.get(method)
    known = [(_capability(device.compute_capability), device) for device in gpus]
    usable = [device for capability, device in known if capability is None or not least
              or capability >= least]  # fmt: skip
    if usable:
        return None
    best = max(capability or 0.0 for capability, _ in known)
    return (
        f"vLLM needs a GPU of compute capability {least} or more for {facts.quant} weights, this "
        f"host's have {best}"
    )


def _capability(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
