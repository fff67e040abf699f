"""Which engine runs a model when nobody says: pure, and explained.

::

    listed for an engine by the operator   first
    GGUF                                   llamacpp, then whoever else can
    safetensors                            vllm, then whoever else can
                                           nobody: what to install, or which GGUF quant to take

An engine says for itself whether it runs a model on this host (``Engine.can_run``); here is
decided who is asked first, and what to say when all decline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    ServiceUnavailable,
    UnsupportedOperation,
)
from helexa.core.outlook import Candidate
from helexa.neuron.engines.base import Host, Verdict
from helexa.neuron.models.facts import ModelFacts

NATIVE = {"gguf": "llamacpp", "safetensors": "vllm"}
"""Whose own format it is."""
FORMATS = {engine: form for form, engine in NATIVE.items()}
INSTALL = {
    "llamacpp": "Install it with: pip install 'helexa[neuron]'",
    "vllm": "give vLLM an environment of its own (docs/vllm.md)",
}
BITS = {
    "Q8_0": 8.5,
    "Q6_K": 6.56,
    "Q5_K_M": 5.68,
    "Q4_K_M": 4.85,
    "Q3_K_M": 3.91,
    "IQ3_XXS": 3.06,
    "Q2_K": 3.0,
    "IQ2_XS": 2.31,
}
"""Bits per weight of the usual quants, largest first. Source: llama.cpp's ``tools/quantize``."""
_KEPT_BACK = 0.8
"""Of usable memory for weights; the rest is for KV and the engine."""


class Knows(Protocol):
    """What of an engine the choice asks."""

    name: str

    def version(self) -> str | None:
        """Installed version."""

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        """Whether the engine and this host suit the model."""


class Choice(msgspec.Struct, frozen=True):
    """Who runs it.

    Args:
        engine: None when nobody does.
        candidates: Everybody in the order they were considered, each with a reason.
        advice: What would help when nobody does.
    """

    engine: str | None
    candidates: tuple[Candidate, ...]
    advice: str = ""


def choose(
    engines: Mapping[str, Knows],
    harness: str | None,
    facts: ModelFacts,
    host: Host,
    *,
    listed: Mapping[str, Collection[str]] | None = None,
    quants: Sequence[str] = (),
) -> Choice:
    """The engine for a model; pure but for what engines know of themselves.

    Args:
        engines: By name.
        harness: The one that was asked for; then only it is considered.
        listed: Engine → the ids that the operator lists for it. An engine that is here takes
            other models only when it is asked for.
        quants: GGUF quants that the same repository has.
    """
    named = listed or {}
    asked = [name for name in engines if harness in (None, name)]
    asked.sort(key=lambda name: _rank(name, facts, named))
    candidates = tuple(_candidate(engines[name], facts, host, named, harness) for name in asked)
    best = next((c.engine for c in candidates if c.ok), None)
    advice = "" if best is not None else _advice(engines, harness, facts, host, quants)
    return Choice(best, candidates, advice)


def refusal(
    choice: Choice, engines: Iterable[str], harness: str | None, facts: ModelFacts
) -> HelexaError | None:
    """The error of a choice without an engine; None when there is one."""
    if choice.engine is not None:
        return None
    if harness is not None and harness not in engines:
        return InvalidRequestBody(
            f"There is no engine '{harness}' on this node; it has {', '.join(engines)}.",
            param="harness",
        )
    if facts.refusal is not None:
        return UnsupportedOperation(
            f"{facts.model_id} cannot be served: {facts.refusal}. Load a model that writes text, "
            "makes embeddings or ranks documents.",
            param="model_id",
        )
    said = "; ".join(f"{c.engine}: {c.detail or c.reason}" for c in choice.candidates)
    advice = f". {choice.advice}" if choice.advice else ""
    return ServiceUnavailable(
        f"No engine of this node can run {facts.model_id}: {said or 'it has none'}{advice}"
    )


def largest_quant(parameters: int, usable_mb: int) -> str | None:
    """The best usual quant whose weights leave room for KV beside them; None if none does."""
    room = usable_mb * _KEPT_BACK * 8 * (1 << 20)
    fitting = (name for name, bits in BITS.items() if parameters * bits <= room)
    return next(fitting, None) if parameters else None


def smaller_quants(quants: Iterable[str], than: str) -> list[str]:
    """Those of ``quants`` that take fewer bits than ``than``, the largest first."""
    bits = {quant: bits_of(quant) for quant in quants}
    limit = bits_of(than)
    kept = [quant for quant, size in bits.items() if size and (not limit or size < limit)]
    return sorted(kept, key=lambda quant: -bits[quant])


def bits_of(quant: str) -> float:
    """About how many bits a weight takes in a quant, from its name; 0 is unknown."""
    name = quant.upper().removeprefix("UD-")
    if name in BITS:
        return BITS[name]
    if name in ("BF16", "F16", "FP16", "F32", "FP32"):
        return 32.0 if "32" in name else 16.0
    digit = next((letter for letter in name if letter.isdigit()), "")
    return int(digit) + 0.5 if digit and int(digit) else 0.0


def _rank(name: str, facts: ModelFacts, listed: Mapping[str, Collection[str]]) -> int:
    if facts.model_id in listed.get(name, ()):
        return 0
    return 1 if NATIVE[facts.format] == name else 2


def _candidate(
    engine: Knows,
    facts: ModelFacts,
    host: Host,
    listed: Mapping[str, Collection[str]],
    harness: str | None,
) -> Candidate:
    version = engine.version()
    verdict = engine.can_run(facts, host)
    if facts.refusal is not None:
        verdict = Verdict(False, "unsupported_model", facts.refusal)
    elif not _offered(engine.name, facts, listed, harness):
        verdict = Verdict(False, "not_listed", "it takes the models that are listed for it")
    why = {
        0: "the operator lists the model for it",
        1: f"{_spelled(facts.format)} is its own format",
        2: "it may run the format too",
    }[_rank(engine.name, facts, listed)]
    if harness == engine.name:
        why = "it was asked for"
    detail = None if verdict.ok else verdict.detail or verdict.reason or "cannot run it"
    reason = None if verdict.ok else verdict.reason or "cannot_run"
    return Candidate(engine.name, verdict.ok, version, reason, detail, why)


def _offered(
    name: str, facts: ModelFacts, listed: Mapping[str, Collection[str]], harness: str | None
) -> bool:
    """Whether an engine may be taken: one with a list only for what is on it, or by name."""
    return name == harness or name not in listed or facts.model_id in listed[name]


def _advice(
    engines: Mapping[str, Knows],
    harness: str | None,
    facts: ModelFacts,
    host: Host,
    quants: Sequence[str],
) -> str:
    """What would help: an engine to install, or a quant to take."""
    if facts.refusal is not None or (harness is not None and harness not in engines):
        return ""
    native = NATIVE[facts.format]
    missing = native not in engines or engines[native].version() is None
    if facts.format == "gguf":
        return INSTALL[native] if missing else ""
    gpus = any(device.kind != "cpu" for device in host.devices)
    install = INSTALL[native] if missing and gpus else ""
    if quants:
        take = f'take the GGUF of the same repository: quant = "{usual_quant(quants)}"'
    else:
        quant = largest_quant(facts.parameters, _usable_mb(host))
        fits = f", for example in {quant}" if quant else ""
        take = f"take a GGUF of it{fits}, which llama.cpp runs"
    advice = f"{install}; or {take}" if install else take
    return f"{advice[:1].upper()}{advice[1:]}."


def usual_quant(quants: Sequence[str]) -> str:
    """The one that most people take, or the nearest to it."""
    if "Q4_K_M" in quants:
        return "Q4_K_M"
    return min(quants, key=lambda quant: abs(bits_of(quant) - BITS["Q4_K_M"]))


def _usable_mb(host: Host) -> int:
    gpus = [device for device in host.devices if device.kind != "cpu"]
    return sum(device.vram_total_mb for device in gpus) or host.memory_total_mb


def _spelled(kind: str) -> str:
    return "GGUF" if kind == "gguf" else kind
