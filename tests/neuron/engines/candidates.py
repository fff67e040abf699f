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
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.driving import QUICK

from helexa import spark
from helexa.neuron.engines.base import Engine
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.settings import CommandSettings

Members = dict[str, Any]

A_GRAMMAR = {"grammar": 'root ::= ("a" | " ")*', "ignore_eos": True, "max_tokens": 2000}
A_THOUGHT = {
    "grammar": 'root ::= "<think>\\nyes, so\\n</think>\\n\\nwell"',
    "chat_template_kwargs": {"enable_thinking": True},
    "max_tokens": 40,
}


@dataclass(frozen=True)
class Candidate:
    """One engine, as the conformance tests meet it.

    Args:
        make: The engine; gets a folder for files of its own, and the wishes for its plan.
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
        tells_load: It says how many requests it runs.
    """

    name: str
    make: Callable[[Path, Mapping[str, object]], Engine]
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
    tells_load: bool = True


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
    tells_load=False,
)

CANDIDATES: dict[str, Candidate] = {
    candidate.name: candidate for candidate in (LLAMACPP, FAKE, COMMAND)
}
"""Another engine is one entry here."""
