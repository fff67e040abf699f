"""The arguments of vLLM's server: from the plan, and the operator's win."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from helexa.neuron.engines.base import Plan
from helexa.neuron.engines.vllm.options import Given, arguments
from helexa.neuron.models.facts import ModelFacts

PLAN = Plan(
    context=8192,
    slots=16,
    kv_cells=65_536,
    devices=(0, 1),
    batch=2048,
    extra={"tensor_parallel": 2, "kv_bytes": 1 << 30, "utilization": 0.9},
)


def values(words: list[str], name: str) -> list[str]:
    """What follows ``--name``, each time."""
    return [
        words[at + 1] if at + 1 < len(words) else ""
        for at, word in enumerate(words)
        if word == f"--{name}"
    ]


def built(facts: ModelFacts, *args: str, plan: Plan = PLAN) -> list[str]:
    return arguments(facts, plan, "org/model", Given.of(args))


def test_the_plan_becomes_arguments(facts: ModelFacts) -> None:
    words = built(facts)
    expected = {
        "model": "/models/m",
        "served-model-name": "org/model",
        "max-model-len": "8192",
        "max-num-seqs": "16",
        "max-num-batched-tokens": "2048",
        "tensor-parallel-size": "2",
        "kv-cache-memory-bytes": str(1 << 30),
        "gpu-memory-utilization": "0.9",
        "tool-call-parser": "hermes",
        "reasoning-parser": "qwen3",
    }
    assert {name: values(words, name) for name in expected} == {
        name: [value] for name, value in expected.items()
    }
    assert "--enable-prefix-caching" in words
    assert "--enable-auto-tool-choice" in words
    assert "--enforce-eager" not in words


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (["--max-num-seqs", "4"], "max-num-seqs"),
        (["--max_num_seqs=4"], "max-num-seqs"),
        (["-tp", "8"], "tensor-parallel-size"),
        (["--no-enable-prefix-caching"], "enable-prefix-caching"),
        (["--tool-call-parser", "qwen3_xml"], "tool-call-parser"),
        (["--device-memory-utilization", "0.5"], "gpu-memory-utilization"),
    ],
)
def test_an_option_of_the_operator_replaces_ours_in_every_spelling(
    facts: ModelFacts, theirs: list[str], ours: str
) -> None:
    words = built(facts, *theirs)
    assert words[-len(theirs) :] == theirs
    assert f"--{ours}" not in words[: -len(theirs)]


def test_what_spans_hosts_is_passed_on_verbatim(facts: ModelFacts) -> None:
    theirs = ["--distributed-executor-backend", "ray", "--pipeline-parallel-size", "2",
              "--hf-overrides", '{"rope_scaling": {"factor": 2.0}}']  # fmt: skip
    assert built(facts, *theirs)[-6:] == theirs


@pytest.mark.parametrize(
    ("word", "number"), [("8192", 8192), ("8k", 8000), ("8K", 8192), ("auto", None), ("", None)]
)
def test_numbers_are_read_in_vllms_spelling(word: str, number: int | None) -> None:
    assert Given.of(["--max-model-len", word]).number("max-model-len") == number


def test_a_cpu_starts_without_compiling_and_a_pooling_model_makes_vectors(
    facts: ModelFacts,
) -> None:
    words = built(facts, plan=replace(PLAN, devices=(), embeddings=True))
    assert "--enforce-eager" in words
    assert "--gpu-memory-utilization" not in words
    assert (values(words, "runner"), values(words, "convert")) == (["pooling"], ["embed"])


def test_images_are_fetched_from_nowhere_unless_the_operator_says_where(facts: ModelFacts) -> None:
    assert values(built(facts), "allowed-media-domains") == ["media.invalid"]
    words = built(facts, "--allowed-media-domains", "example.org")
    assert values(words, "allowed-media-domains") == ["example.org"]
