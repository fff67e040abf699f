"""How llama.cpp will run a model: what is asked for is obeyed, the rest is chosen."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from helexa.core.errors import InsufficientVram
from helexa.core.fleet import Device, DeviceReading
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.engines.llamacpp.build import LlamaCppBuild
from helexa.neuron.engines.llamacpp.engine import LlamaCpp, server_config
from helexa.neuron.engines.llamacpp.planning import make_plan, threads_for
from helexa.neuron.models.facts import ModelFacts

CPU = Host((), (), 24_000, 20_000, 2)
GPU = Host(
    (Device(0, "H200", 140_000), Device(1, "H200", 140_000)),
    (DeviceReading(0, 0, 100_000), DeviceReading(1, 0, 100_000)),
    128_000,
    100_000,
    16,
)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 3), (16, 15)])
def test_a_core_is_left_for_the_node_where_there_are_enough(
    facts: ModelFacts, cores: int, threads: int
) -> None:
    assert threads_for(facts, cores) == threads
    assert threads_for(replace(facts, weight_bytes=5 << 20), cores) == 1


def test_the_prefill_chunk_is_what_can_be_computed_within_the_cancel_target(
    facts: ModelFacts,
) -> None:
    assert make_plan(facts, CPU, {"prefill_tok_s": 5000.0}).batch == 128
    assert make_plan(facts, CPU, {"prefill_tok_s": 10.0}).batch == 64
    assert make_plan(facts, CPU, {"prefill_tok_s": 1e6}).batch == 512
    assert make_plan(facts, CPU, {}).batch == 64
    assert make_plan(facts, CPU, {"extra": {"batch": 256}}).batch == 256
    assert make_plan(facts, CPU, {"slots": 96}).batch == 96
    assert make_plan(facts, CPU, {"embeddings": True}).batch == 512
    assert make_plan(facts, GPU, {}).batch == 2048


def test_a_rate_of_short_prompts_makes_no_chunk_too_long_at_the_end_of_a_context(
    facts: ModelFacts,
) -> None:
    rate = 3000.0  # 80 ms of it are 240 tokens, but there attention costs more than the weights
    assert make_plan(facts, CPU, {"prefill_tok_s": rate}).batch == 64


def test_a_model_made_for_vectors_serves_them_unasked(facts: ModelFacts) -> None:
    assert make_plan(replace(facts, pooling="mean"), CPU, {}).embeddings
    assert make_plan(replace(facts, pooling="rank"), CPU, {}).rerank
    plain = make_plan(facts, CPU, {})
    assert (plain.embeddings, plain.rerank) == (False, False)


def test_every_field_of_the_plan_reaches_the_server(facts: ModelFacts) -> None:
    plan = Plan(
        context=1000,
        slots=3,
        kv_cells=2500,
        unified=False,
        kv_type="q8_0",
        ahead_cells=7,
        devices=(1, 2),
        tensor_split=(0.25, 0.75),
        gpu_layers=12,
        threads=5,
        batch=64,
        cache_ram_mb=77,
        embeddings=True,
        rerank=True,
        extra={
            "split_mode": "row",
            "flash_attention": "on",
            "main_gpu": 1,
            "poll": 3,
            "image_max_tokens": 64,
        },
    )
    config = server_config(facts, plan, "served", "key")
    assert (config.cells, config.slots, config.unified) == (2500 + 3 * 7, 3, False)
    assert (config.kv_type, config.prefill_batch, config.cache_ram_mb) == ("q8_0", 64, 77)
    assert (config.gpu_layers, config.tensor_split) == (12, (0.25, 0.75))
    assert (config.split_mode, config.main_gpu, config.flash_attention) == ("row", 1, "on")
    assert (config.threads, config.poll, config.image_max_tokens) == (5, 3, 64)
    assert (config.embeddings, config.rerank, config.pooling) == (True, True, "mean")
    assert (config.alias, config.path) == ("served", str(facts.path))
    launch = LlamaCpp({}).launch(facts, plan, "served")
    assert launch.env["CUDA_VISIBLE_DEVICES"] == "1,2"


def test_what_does_not_fit_is_refused_with_figures(facts: ModelFacts) -> None:
    small = Host((), (), 1000, 500, 2)
    with pytest.raises(InsufficientVram) as refused:
        LlamaCpp({}).plan(facts, small, {})
    assert refused.value.extras["needed_mb"]


def test_a_gpu_the_wheel_cannot_use_is_no_silent_cpu_fallback(facts: ModelFacts) -> None:
    verdict = LlamaCpp({}).can_run(facts, GPU)
    assert (verdict.ok, verdict.reason) == (False, "engine_without_gpu")
    assert "pip install" in str(verdict.detail)
    built = LlamaCppBuild(("CPU", "CUDA0"))
    assert LlamaCpp({}, built).can_run(facts, GPU).ok
    assert LlamaCpp({}, cpu_only=True).can_run(facts, GPU).ok
    assert LlamaCpp({}).can_run(facts, CPU).ok


def test_gpus_that_the_host_cannot_use_are_no_reason_to_run_on_the_cpu(facts: ModelFacts) -> None:
    broken = replace(CPU, fault="The kernel module is 550, the library 535.")
    verdict = LlamaCpp({}).can_run(facts, broken)
    assert (verdict.ok, verdict.reason) == (False, "engine_without_gpu")
    assert "550" in str(verdict.detail)
    assert LlamaCpp({}, cpu_only=True).can_run(facts, broken).ok


def test_only_gguf_is_run(facts: ModelFacts) -> None:
    verdict = LlamaCpp({}).can_run(replace(facts, format="safetensors"), CPU)
    assert verdict.reason == "unsupported_format"


def test_our_settings_and_secrets_do_not_reach_the_engine(facts: ModelFacts) -> None:
    environ = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/cuda",
        "NEURON_FLEET__SECRET": "x",
        "HELEXA_KEY": "x",
        "HF_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    plan = make_plan(facts, CPU, {})
    launch = LlamaCpp(environ).launch(facts, plan, "m")
    assert set(environ) & set(launch.env) == {"PATH", "LD_LIBRARY_PATH"}
    assert launch.api_key.encode() in launch.secret
    assert launch.api_key not in repr(launch)
