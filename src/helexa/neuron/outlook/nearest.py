"""What would make a model fit, with the exact lines that do it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from helexa.core.errors import InsufficientVram
from helexa.core.outlook import Nearest
from helexa.neuron.choice import BITS, largest_quant
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan.memory import MIB

_WORDS = {
    "ctx": "a context of {} tokens",
    "slots": "{} slot",
    "kv_type": "KV in {}",
    "gpu_layers": "{} layers on the GPU and the rest on the CPU",
}


def of_settings(error: InsufficientVram, engine: str) -> list[Nearest]:
    """The engine's own nearest settings, as lines of neuron.toml."""
    settings = error.extras.get("nearest")
    if not isinstance(settings, Mapping) or not settings:
        return []
    words = [_WORDS.get(str(n), f"{n} = {{}}").format(v) for n, v in settings.items()]
    lines = [f"{name} = {toml(value)}" for name, value in settings.items()]
    return [Nearest(f"It fits with {' and '.join(words)}.", [f"[engines.{engine}]", *lines])]


def of_quant(model_id: str, quant: str, weights_mb: int) -> Nearest:
    """A smaller quant of the same repository that fits."""
    return Nearest(
        f"It fits in {quant}, whose weights are {weights_mb} MiB.",
        ["[[models]]", f"id = {toml(model_id)}", f"quant = {toml(quant)}"],
    )


def of_other_files(facts: ModelFacts, usable_mb: int) -> list[Nearest]:
    """A quant that would fit if somebody has made it; nothing when none would."""
    quant = largest_quant(facts.parameters, usable_mb)
    stored = facts.weight_bytes * 8 / facts.parameters if facts.parameters else 0.0
    if quant is None or BITS[quant] >= stored:
        return []
    size = facts.parameters * BITS[quant] / 8 / MIB
    return [Nearest(f"A GGUF of it in {quant} would fit, with about {size:.0f} MiB of weights.")]


def of_loaded(loaded: Sequence[str]) -> list[Nearest]:
    """Whatever else is loaded there."""
    if not loaded:
        return [Nearest("It fits once other programs on this host leave its memory alone.")]
    unloads = [f"helexa fleet unload {model}" for model in loaded]
    return [Nearest("It fits once what is loaded there has gone.", unloads)]


def in_quant(facts: ModelFacts, quant: str, weight_bytes: int) -> ModelFacts:
    """The same model with other weights: what is proportional to them is scaled."""
    scale = weight_bytes / facts.weight_bytes if facts.weight_bytes else 1.0
    return replace(
        facts,
        quant=quant,
        weight_bytes=weight_bytes,
        embedding_bytes=int(facts.embedding_bytes * scale),
        repack_bytes=int(facts.repack_bytes * scale),
    )


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
