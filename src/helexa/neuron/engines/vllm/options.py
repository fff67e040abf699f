"""vLLM's arguments: ours from the plan, the operator's as they are, and theirs win.

Whatever the operator gives is passed on verbatim, behind ours; an option of theirs removes ours
of the same name, in every spelling vLLM takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from helexa.neuron.engines.base import Plan
from helexa.neuron.engines.vllm.parsers import Family, family_of
from helexa.neuron.models.facts import ModelFacts

_ALIASES = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "device-memory-utilization": "gpu-memory-utilization",
}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NOWHERE = "media.invalid"
"""The only domain that images may be fetched from unless the operator names others: none."""


class Given(msgspec.Struct, frozen=True):
    """What the operator's arguments say, by long name without dashes; flags have no value."""

    args: tuple[str, ...]
    values: dict[str, str]

    @classmethod
    def of(cls, args: Sequence[str]) -> Given:
        """Read ``--name value``, ``--name=value``, ``--no-name`` and the short forms."""
        values: dict[str, str] = {}
        name = ""
        for word in args:
            if re.match(r"--?[A-Za-z]", word):
                stem, _, value = word.lstrip("-").partition("=")
                stem = stem.replace("_", "-")
                name = _ALIASES.get(stem, stem).removeprefix("no-")
                values[name] = value
            elif name:
                values[name] = f"{values[name]} {word}".strip()
        return cls(tuple(args), values)

    def has(self, name: str) -> bool:
        """Whether the operator has decided on ``name``."""
        return name in self.values

    def number(self, name: str) -> int | None:
        """A count in vLLM's spelling (``8192``, ``8k``, ``8K``); None where there is none."""
        found = _NUMBER.fullmatch(self.values.get(name, ""))
        return int(float(found[1]) * _SCALE[found[2]]) if found else None

    def fraction(self, name: str) -> float | None:
        """A share of something."""
        found = _NUMBER.fullmatch(self.values.get(name, ""))
        return float(found[1]) if found and not found[2] else None


def arguments(facts: ModelFacts, plan: Plan, model_id: str, given: Given) -> list[str]:
    """Everything but the key and the socket, which are the launcher's."""
    ours = [
        ("model", str(facts.path)),
        ("served-model-name", model_id),
        *_sizes(plan),
        *_parsing(family_of(facts)),
        *_pooling(plan),
        ("enable-prefix-caching",),
        ("enable-prompt-tokens-details",),
        ("enable-per-request-metrics",),
        ("disable-uvicorn-access-log",),
        ("allowed-media-domains", _NOWHERE),
    ]
    if not plan.devices:
        ours.append(("enforce-eager",))  # compiling on a CPU takes minutes of every start
    kept = [option for option in ours if not given.has(option[0])]
    words = [word for name, *values in kept for word in (f"--{name}", *values)]
    return [*words, *given.args]


def _sizes(plan: Plan) -> list[tuple[str, ...]]:
    extra = plan.extra
    sizes: list[tuple[str, ...]] = [
        ("max-model-len", str(plan.context)),
        ("max-num-seqs", str(plan.slots)),
        ("max-num-batched-tokens", str(plan.batch)),
        ("tensor-parallel-size", str(extra["tensor_parallel"])),
        ("kv-cache-memory-bytes", str(extra["kv_bytes"])),
    ]
    if plan.devices:
        sizes.append(("gpu-memory-utilization", str(extra["utilization"])))
    if plan.kv_type == "fp8":
        sizes.append(("kv-cache-dtype", "fp8"))
    return sizes


def _parsing(family: Family | None) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    if family is not None and family.tools is not None:
        found += [("enable-auto-tool-choice",), ("tool-call-parser", family.tools)]
    if family is not None and family.reasoning is not None:
        found.append(("reasoning-parser", family.reasoning))
    return found


def _pooling(plan: Plan) -> list[tuple[str, ...]]:
    """A vLLM server either writes or makes vectors."""
    if plan.rerank:
        return [("runner", "pooling"), ("convert", "classify")]
    return [("runner", "pooling"), ("convert", "embed")] if plan.embeddings else []
