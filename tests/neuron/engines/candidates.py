"""The engines that must conform: how each is started, and what it cannot do.

What an engine lacks is a skip under the test's name, with the reason, in the table of
``docs/reference/engines.md``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.driving import QUICK, Busy, Case

from helexa import spark
from helexa.neuron.engines.base import Engine
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.http import ask
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.engines.vllm.build import VllmBuild, find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.settings import CommandSettings

Members = dict[str, Any]

_PREDICTED = re.compile(rb'"predicted_n":(\d+)')
_TOKENS = re.compile(rb'"token_ids":\[([\d,]+)\]')

A_GRAMMAR = {"grammar": 'root ::= ("a" | " ")*', "ignore_eos": True, "max_tokens": 2000}
A_THOUGHT = {
    "grammar": 'root ::= "<think>\\nyes, so\\n</think>\\n\\nwell"',
    "chat_template_kwargs": {"enable_thinking": True},
    "max_tokens": 40,
}


def predicted(raw: bytes) -> int:
    """Output tokens by the last of an engine's counts."""
    return max((int(number) for number in _PREDICTED.findall(raw)), default=0)


def tokens(raw: bytes) -> int:
    """Output tokens of an engine that says which they are."""
    return sum(ids.count(b",") + 1 for ids in _TOKENS.findall(raw))


@dataclass(frozen=True)
class Candidate:
    """One engine, as the conformance tests meet it.

    Args:
        make: The engine; gets a folder for files of its own, and the wishes for its plan. None
            where it is not installed.
        model: What it runs.
        wanted: Wishes for its plan.
        endless: Members of a request that make the answer long.
        thoughtful: Members that make it think, and then answer.
        slow: Members that make a prompt take its time.
        failing: Members that make it fail in mid-answer; none where it cannot be told to.
        lacks: Test → why the engine cannot pass it.
        marks: Of its parameter.
        crowds: Rounds of requests in the metering test.
        exact: Its stream says how many tokens it has taken, at any time.
        call: Members of a request that make it call a tool, beside asking for it in words.
        busy: How many requests it runs, where the engine does not tell.
        frees_s: Within this a slot is free when its client has left.
        progress: It says how far a prompt is while it reads it.
        both: One server chats and embeds.
        question: What the built-in model thinks about, with ``thoughtful``.
        counted: Output tokens (one choice) by what the engine's stream has said so far.
        shared: It starts in many seconds: one process serves the whole session, and tests that
            end a process are given that one.
        missing: What to do about an engine that is not installed.
    """

    name: str
    make: Callable[[Path, Mapping[str, object]], Engine | None]
    model: Callable[[], ModelFacts]
    wanted: Mapping[str, object] = field(default_factory=dict)
    endless: Members = field(default_factory=lambda: dict(A_GRAMMAR))
    thoughtful: Members = field(default_factory=lambda: dict(A_THOUGHT))
    slow: Members = field(default_factory=dict)
    failing: Members = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[pytest.MarkDecorator, ...] = ()
    settings: SupervisorSettings = QUICK
    crowds: int = 6
    exact: bool = True
    call: Members = field(default_factory=lambda: {"tool_choice": "required"})
    busy: Busy | None = None
    frees_s: float = 0.1
    progress: bool = True
    both: bool = True
    question: str = "What is it?"
    counted: Callable[[bytes], int] = predicted
    shared: bool = False
    missing: str = ""


def as_gguf() -> ModelFacts:
    return inspect(spark.gguf_path(), spark.MODEL_ID)


def as_safetensors() -> ModelFacts:
    return inspect(spark.safetensors_dir(), spark.MODEL_ID)


FOUR_SLOTS: dict[str, object] = {"slots": 4, "extra": {"unified": True}}

FAKE = Candidate(
    "fake",
    lambda _folder, _wanted: FakeEngine(os.environ),
    as_gguf,
    FOUR_SLOTS,
    endless={**A_GRAMMAR, "fake": {"count": 100_000}},
    slow={"fake": {"prefill_s": 0.05}},
    failing={"fake": {"error_after": 2, "prefill_s": 0}},
)
LLAMACPP = Candidate("llamacpp", lambda _folder, _wanted: LlamaCpp(os.environ), as_gguf, FOUR_SLOTS)


COUNTS = "/v1/chat/completions/input_tokens"


def textual_template() -> str:
    """Spark's template without the form of a call: a server cannot learn to parse it then."""
    source = (spark.safetensors_dir() / "chat_template.jinja").read_text("utf-8")
    calls = re.compile(
        r" *\{%- for call in message\.tool_calls or \[\] %\}\n.*?\n {8}\{%- endfor %\}\n", re.DOTALL
    )
    shorter, found = calls.subn("", source)
    assert found == 1
    return shorter


def llama_server(folder: Path, wanted: Mapping[str, object], **more: Any) -> CommandEngine:
    """llama.cpp's server by a command line; it hands its model's text over as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / "template.jinja"
    template.write_text(textual_template(), "utf-8")
    program = Path(__file__).with_name("llama_server.py")
    command = [
        sys.executable, str(program), "--model", "{model}", "--alias", "{served_id}",
        "--port", "{port}", "--key-file", "{key_file}", "--template", str(template),
        "--context", "{total_context}", "--slots", "{slots}",
    ]  # fmt: skip
    if wanted.get("embeddings"):
        command.append("--embeddings")
    given: dict[str, Any] = {"command": command, "slots": 4, "tokenize": COUNTS, **more}
    return CommandEngine("own", msgspec.convert(given, CommandSettings), os.environ)


async def busy_slots(case: Case) -> int:
    """By llama.cpp's own word."""
    answer = await ask(case.address, "GET", "/slots")
    return sum(slot["is_processing"] for slot in answer.json())


AT_THE_END = "it says what a prompt or an answer has cost only when the answer has begun or ended"
COMMAND = Candidate(
    "command",
    llama_server,
    as_gguf,
    lacks={
        "test_leaving_during_the_prompt_frees_the_slot": AT_THE_END,
        "test_the_meter_is_the_engines_own_count_after_every_event": AT_THE_END,
        "test_a_schema_binds_the_answer": "llama.cpp's own grammar does not start behind the "
        "thought that the prompt closes; the llamacpp engine compiles its own",
        "test_the_count_of_a_legacy_prompt_is_what_it_then_costs": "it counts chats only",
    },
    crowds=2,
    exact=False,
    settings=msgspec.structs.replace(QUICK, start_deadline_s=50),
    busy=busy_slots,
    frees_s=0.5,
)


async def answers_again(case: Case) -> int:
    """A server that works on one request after the other is free when it has answered another."""
    await case.say("Repeat: house", max_tokens=1)
    return 0


def transformers_serve(_folder: Path, _wanted: Mapping[str, object]) -> Engine | None:
    """``transformers serve`` out of the environment that has it."""
    program = foreign_program("transformers")
    if program is None:
        return None
    command = [str(program), "serve", "{model}", "--host", "{host}", "--port", "{port}",
               "--device", "cpu"]  # fmt: skip
    ignored = ["n", "logprobs", "top_logprobs", "response_format", "tool_choice",
               "parallel_tool_calls", "presence_penalty"]  # fmt: skip
    given = {
        "command": command,
        "model_name": "{model}",
        "unsupported": ignored,
        "cuts_at_stop": False,
        "env": {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    }
    return CommandEngine("transformers", msgspec.convert(given, CommandSettings), os.environ)


FOREIGN = ".venv-vllm"


def foreign_program(name: str) -> Path | None:
    """A program of the environment of engines that do not live in ours."""
    root = Path(__file__).parents[3]
    named = os.environ.get("HELEXA_VLLM_PYTHON")
    folder = Path(named).parent if named else root / FOREIGN / "bin"
    return folder / name if (folder / name).exists() else None


NO_COUNT = "it does not count prompts; the node estimates them"
TRANSFORMERS = Candidate(
    "transformers",
    transformers_serve,
    as_safetensors,
    endless={"generation_config": '{"min_new_tokens": 2000}', "max_tokens": 2000},
    thoughtful={
        "messages": [{"role": "user", "content": "What is 3 + 4?"}],
        "chat_template_kwargs": {"enable_thinking": True},
        "max_tokens": 60,
        "temperature": 0,
    },
    call={},
    lacks={
        "test_leaving_during_the_prompt_frees_the_slot": AT_THE_END,
        "test_the_meter_is_the_engines_own_count_after_every_event": AT_THE_END,
        "test_a_schema_binds_the_answer": "it ignores `response_format`, so it is refused",
        "test_several_choices_are_summed_and_kept_apart": "it ignores `n`, so it is refused",
        "test_the_second_turn_finds_the_first_one_cached": "it keeps nothing between requests",
        "test_the_count_of_a_cleaned_request_knows_what_was_changed": NO_COUNT,
        "test_the_count_of_a_legacy_prompt_is_what_it_then_costs": NO_COUNT,
        "test_the_count_is_what_the_prompt_then_costs": NO_COUNT,
        "test_too_long_a_prompt_is_refused_with_its_figures": "it has no limit; the node's own "
        "stands before it",
        "test_embeddings_are_counted_and_carry_the_served_id": "it makes no embeddings",
        "test_a_key_is_demanded": "it takes no key; it listens on the loopback only",
    },
    marks=(pytest.mark.engines, pytest.mark.timeout(300)),
    settings=msgspec.structs.replace(QUICK, start_deadline_s=240),
    crowds=1,
    exact=False,
    busy=answers_again,
    shared=True,
    frees_s=30,
    missing="transformers serve is not installed; run: make vllm-env",
)


@cache
def installed_vllm() -> VllmBuild | None:
    """Where ``HELEXA_VLLM_PYTHON`` says, or where a node would look."""
    return find_build(None, os.environ)


def vllm(ranks: int) -> Candidate:
    """vLLM; ``make engines`` runs it."""

    def make(_folder: Path, _wanted: Mapping[str, object]) -> Engine | None:
        build = installed_vllm()
        return Vllm(os.environ, build) if build is not None else None

    return Candidate(
        "vllm" if ranks == 1 else f"vllm-tp{ranks}",
        make,
        as_safetensors,
        {"slots": 4, "max_devices": ranks},
        endless={"ignore_eos": True, "max_tokens": 2000},
        thoughtful={
            "chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 40, "temperature": 0,
        },
        marks=(pytest.mark.engines, pytest.mark.timeout(420)),
        settings=SupervisorSettings(start_deadline_s=240, backoff_min_s=0.02, stop_grace_s=2),
        progress=False,
        both=False,
        frees_s=2.0,
        question="What is 3+4?",
        counted=tokens,
        shared=True,
        missing="vLLM is not installed; run: make vllm-env",
    )  # fmt: skip


CANDIDATES: dict[str, Candidate] = {
    candidate.name: candidate
    for candidate in (FAKE, LLAMACPP, COMMAND, TRANSFORMERS, vllm(1), vllm(2))
}
"""Another engine is one entry here."""
