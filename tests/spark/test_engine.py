"""The shipped file through llama.cpp: tokens, prompts and behaviour."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
import pytest

from helexa import spark

GOLDEN = Path(__file__).parent / "golden"
SERVE = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.n_parallel = sys.argv[1], 0, 8192, 1
params.cpuparams.n_threads, params.cache_ram_mib, params.use_jinja = 1, 0, True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
import os; os._exit(0)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[httpx.Client]:
    command = [sys.executable, "-c", SERVE, str(spark.gguf_path())]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            address = next(line for line in child.stdout if line.startswith("http")).strip()
            with httpx.Client(base_url=address, timeout=150) as client:
                yield client
        finally:
            child.stdin.close()
            child.wait(timeout=30)


def golden(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())
    return entries


def complete(engine: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = engine.post("/v1/chat/completions", json={"temperature": 0, "max_tokens": 320} | body)
    choice: dict[str, Any] = answer.raise_for_status().json()["choices"][0]
    return choice


def test_llama_cpp_and_tokenizers_agree_on_every_text(engine: httpx.Client) -> None:
    for entry in golden("tokens"):
        body = {"content": entry["text"], "add_special": False, "parse_special": True}
        assert engine.post("/tokenize", json=body).json()["tokens"] == entry["ids"], entry["text"]


def test_any_text_comes_back_from_its_tokens(engine: httpx.Client) -> None:
    for entry in golden("tokens"):
        if "<|" not in entry["text"]:  # control tokens are not part of the text
            text = engine.post("/detokenize", json={"tokens": entry["ids"]}).json()["content"]
            assert text == entry["text"]


@pytest.mark.parametrize("entry", golden("prompts"), ids=lambda entry: str(entry["name"]))
def test_llama_cpp_and_jinja2_render_the_same_prompt(
    engine: httpx.Client, entry: dict[str, Any]
) -> None:
    found = engine.post("/apply-template", json=entry["request"]).json()["prompt"]
    assert found == entry["prompt"]


@pytest.mark.slow  # seven thousand tokens of prompt: three seconds on a quiet core
def test_a_prompt_that_fills_the_context_still_gives_tokens(engine: httpx.Client) -> None:
    text = "river stone " * 1800 + "\nRepeat: apple"
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "logprobs": True}
    choice = complete(engine, body)
    assert all(entry["logprob"] <= 0 for entry in choice["logprobs"]["content"])  # NaN is not


@pytest.mark.parametrize("task", [
    "capitals", "repeating", "sums", "tool call", "agent tool call", "two calls",
    "answer to a result", "counting to 30", "identity", "thinking enabled", "thinking disabled",
    "no call needed", "several turns", "JSON answer", "small talk",
])  # fmt: skip
def test_a_sample_of_the_held_out_evaluation_passes(engine: httpx.Client, task: str) -> None:
    from cases import suite

    cases = suite(task)[:12]
    wrong = []
    for case in cases:
        body: dict[str, Any] = {
            "messages": case.messages,
            "chat_template_kwargs": {"enable_thinking": case.thinking},
        }
        if case.tools:
            body["tools"] = [tool.schema() for tool in case.tools]
        if case.response_format:
            body["response_format"] = case.response_format
        choice = complete(engine, body)
        if not case.check(choice["message"], choice["finish_reason"]):
            wrong.append((case.messages[-1], choice["message"]))
    assert len(wrong) <= 2, wrong
