"""Which engine runs a model, why, and what to do when none does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from helexa.core.errors import InvalidRequestBody, ServiceUnavailable, UnsupportedOperation
from helexa.core.fleet import Device
from helexa.neuron.choice import choose, largest_quant, refusal, smaller_quants, usual_quant
from helexa.neuron.engines.base import Host, Verdict
from helexa.neuron.models.facts import Format, ModelFacts

CPU = Host((), (), 16_384, 12_000, 4)
GPU = Host((Device(0, "RTX 4090", 24_000),), (), 16_384, 12_000, 4)


@dataclass
class Picky:
    """An engine that runs some formats."""

    name: str
    formats: tuple[str, ...]
    installed: str | None = "1.0"
    needs_gpu: bool = False

    def version(self) -> str | None:
        return self.installed

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        if facts.format not in self.formats:
            return Verdict(False, "unsupported_format", f"runs {' '.join(self.formats)} only")
        if self.installed is None:
            return Verdict(False, "engine_not_installed", "run: pip install it")
        if self.needs_gpu and not host.devices:
            return Verdict(False, "no_device", "there is no GPU")
        return Verdict(True)


LLAMA = Picky("llamacpp", ("gguf",))
VLLM = Picky("vllm", ("safetensors", "gguf"))
OTHER = Picky("mine", ("safetensors", "gguf"))


def model(kind: Format, **more: object) -> ModelFacts:
    known = {"parameters": 8_000_000_000, "weight_bytes": 16_000_000_000, **more}
    return ModelFacts("org/m", Path("/m"), kind, "qwen3", layers=2, kv_layers=2, kv_heads=1,
                      head_dim_k=8, head_dim_v=8, context_native=4096, embedding_dim=8, vocab=8,
                      **known)  # type: ignore[arg-type]  # fmt: skip


def by_name(*engines: Picky) -> dict[str, Picky]:
    return {engine.name: engine for engine in engines}


@pytest.mark.parametrize(
    ("kind", "engine"), [("gguf", "llamacpp"), ("safetensors", "vllm")]
)  # fmt: skip
def test_a_format_goes_to_the_engine_whose_own_it_is(kind: Format, engine: str) -> None:
    for engines in (by_name(LLAMA, VLLM, OTHER), by_name(OTHER, VLLM, LLAMA)):
        chosen = choose(engines, None, model(kind), CPU)
        assert chosen.engine == engine
        assert len(chosen.candidates) == 3
        assert "own format" in chosen.candidates[0].why


def test_what_the_operator_lists_for_an_engine_comes_first() -> None:
    listed = {"mine": ["org/m"]}
    chosen = choose(by_name(LLAMA, VLLM, OTHER), None, model("safetensors"), CPU, listed=listed)
    assert (chosen.engine, chosen.candidates[0].why) == (
        "mine",
        "the operator lists the model for it",
    )


def test_an_engine_with_a_list_takes_others_only_by_name() -> None:
    engines = by_name(LLAMA, OTHER)
    listed: dict[str, list[str]] = {"mine": []}
    chosen = choose(engines, None, model("safetensors"), CPU, listed=listed)
    assert (chosen.engine, chosen.candidates[1].reason) == (None, "not_listed")
    assert choose(engines, "mine", model("safetensors"), CPU, listed=listed).engine == "mine"


def test_another_engine_takes_what_the_own_one_cannot_run_here() -> None:
    vllm = Picky("vllm", ("safetensors",), needs_gpu=True)
    chosen = choose(by_name(LLAMA, vllm, OTHER), None, model("safetensors"), CPU)
    assert chosen.engine == "mine"
    assert [(c.engine, c.ok, c.detail) for c in chosen.candidates] == [
        ("vllm", False, "there is no GPU"),
        ("llamacpp", False, "runs gguf only"),
        ("mine", True, None),
    ]
    assert choose(by_name(LLAMA, vllm, OTHER), None, model("safetensors"), GPU).engine == "vllm"


def test_an_engine_that_is_asked_for_is_the_only_one_asked() -> None:
    chosen = choose(by_name(LLAMA, VLLM), "vllm", model("gguf"), CPU)
    assert (chosen.engine, [c.why for c in chosen.candidates]) == ("vllm", ["it was asked for"])
    declined = choose(by_name(LLAMA, VLLM), "llamacpp", model("safetensors"), CPU)
    assert declined.engine is None


def test_an_engine_that_does_not_exist_is_a_wrong_request() -> None:
    engines = by_name(LLAMA)
    error = refusal(choose(engines, "warp", model("gguf"), CPU), engines, "warp", model("gguf"))
    assert isinstance(error, InvalidRequestBody)
    assert "it has llamacpp" in error.message


@pytest.mark.parametrize(
    ("kind", "host", "quants", "advice"),
    [
        ("gguf", CPU, (), "Install it with: pip install 'helexa[neuron]'"),
        ("safetensors", GPU, (),
         ("Give vLLM an environment of its own (docs/vllm.md); or take a GGUF of it, for "
          "example in Q8_0, which llama.cpp runs.")),
        ("safetensors", CPU, (),
         "Take a GGUF of it, for example in Q8_0, which llama.cpp runs."),
        ("safetensors", CPU, ("Q8_0", "Q4_K_M"),
         'Take the GGUF of the same repository: quant = "Q4_K_M".'),
    ],
)  # fmt: skip
def test_when_nobody_can_the_refusal_says_what_to_install_or_take(
    kind: Format, host: Host, quants: tuple[str, ...], advice: str
) -> None:
    none = by_name(Picky("llamacpp", ("gguf",), None), Picky("vllm", ("safetensors",), None))
    chosen = choose(none, None, model(kind), host, quants=quants)
    assert chosen.advice == advice
    error = refusal(chosen, none, None, model(kind))
    assert isinstance(error, ServiceUnavailable)
    assert error.message.endswith(advice)
    assert "run: pip install it" in error.message


def test_what_is_no_model_for_us_is_refused_by_what_it_is() -> None:
    speech = model("safetensors", refusal="it is Whisper, which turns speech into text")
    engines = by_name(LLAMA, VLLM)
    chosen = choose(engines, None, speech, GPU)
    error = refusal(chosen, engines, None, speech)
    assert isinstance(error, UnsupportedOperation)
    assert "turns speech into text" in error.message
    assert chosen.advice == ""


@pytest.mark.parametrize(
    ("billions", "usable_mb", "quant"),
    [(8, 24_000, "Q8_0"), (8, 8_000, "Q6_K"), (70, 48_000, "Q3_K_M"), (70, 8_000, None),
     (0, 8_000, None)],
)  # fmt: skip
def test_the_largest_quant_that_fits_is_named(
    billions: int, usable_mb: int, quant: str | None
) -> None:
    assert largest_quant(billions * 10**9, usable_mb) == quant


def test_quants_are_compared_by_their_bits() -> None:
    there = ("Q8_0", "UD-Q2_K_XL", "Q4_K_M", "BF16", "Q6_K", "MXFP4", "odd")
    assert smaller_quants(there, "Q6_K") == ["Q4_K_M", "MXFP4", "UD-Q2_K_XL"]
    assert usual_quant(there) == "Q4_K_M"
    assert usual_quant(("Q8_0", "Q5_K_S")) == "Q5_K_S"
