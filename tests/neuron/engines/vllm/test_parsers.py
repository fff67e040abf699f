"""Which parsers a model family gets, on templates as their models ship them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.neuron.engines.candidates import installed_vllm

from helexa import spark
from helexa.neuron.engines.vllm.parsers import FAMILIES, family_of
from helexa.neuron.models.facts import ModelFacts

CALL = "<tool_call>{{ call | tojson }}</tool_call>"
XML = "<tool_call><function={{ name }}><parameter={{ key }}></parameter></function></tool_call>"


def parsers(facts: ModelFacts, template: str, architecture: str) -> tuple[str | None, str | None]:
    found = family_of(replace(facts, chat_template=template, architecture=architecture))
    return (None, None) if found is None else (found.tools, found.reasoning)


@pytest.mark.parametrize(
    ("template", "architecture", "expected"),
    [
        (CALL + "<think>", "Qwen3ForCausalLM", ("hermes", "qwen3")),
        (CALL, "Qwen2ForCausalLM", ("hermes", None)),
        (CALL, "GraniteMoeHybridForCausalLM", ("granite4", None)),
        (XML, "Qwen3MoeForCausalLM", ("qwen3_coder", None)),
        (XML + "<think>", "Qwen3_5ForConditionalGeneration", ("qwen3_coder", "qwen3")),
        (XML + "<think>", "NemotronHForCausalLM", ("qwen3_coder", "nemotron_v3")),
        ("[TOOL_CALLS]", "MistralForCausalLM", ("mistral", None)),
        ("[TOOL_CALLS][THINK]", "MistralForCausalLM", ("mistral", "mistral")),
        ("<|channel|>final<|message|>", "GptOssForCausalLM", ("openai", "openai_gptoss")),
        ("<｜tool▁calls▁begin｜>{{ thinking }}", "DeepseekV3ForCausalLM",
         ("deepseek_v31", "deepseek_v3")),
        ("<｜tool▁calls▁begin｜>```json", "DeepseekV3ForCausalLM",
         ("deepseek_v3", "deepseek_r1")),
        ('<|start_header_id|>"parameters"', "LlamaForCausalLM", ("llama3_json", None)),
        ("<think></think>", "OtherForCausalLM", (None, "deepseek_r1")),
        ("{{ messages }}", "OtherForCausalLM", (None, None)),
    ],
)  # fmt: skip
def test_the_template_decides_and_the_architecture_where_two_write_alike(
    facts: ModelFacts,
    template: str,
    architecture: str,
    expected: tuple[str | None, str | None],
) -> None:
    assert parsers(facts, template, architecture) == expected


def test_the_built_in_model_is_read_as_chatml_with_thoughts(facts: ModelFacts) -> None:
    template = spark.gguf_path().with_name("hf") / "chat_template.jinja"
    assert parsers(facts, template.read_text(), "Qwen3ForCausalLM") == ("hermes", "qwen3")


TEMPLATES = Path(__file__).parents[4] / "shared" / "templates"
SHIPPED = {
    "Qwen-Qwen3-0.6B": ("Qwen3ForCausalLM", "hermes", "qwen3"),
    "Qwen3-Coder": ("Qwen3MoeForCausalLM", "qwen3_coder", None),
    "Qwen3.5-4B": ("Qwen3_5ForConditionalGeneration", "qwen3_coder", "qwen3"),
    "deepseek-ai-DeepSeek-V3.1": ("DeepseekV3ForCausalLM", "deepseek_v31", "deepseek_v3"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("MistralForCausalLM", "mistral", None),
    "openai-gpt-oss-120b": ("GptOssForCausalLM", "openai", "openai_gptoss"),
}


@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the templates of other models are not here")
@pytest.mark.parametrize("name", SHIPPED)
def test_templates_as_they_are_shipped_get_their_parsers(facts: ModelFacts, name: str) -> None:
    architecture, *expected = SHIPPED[name]
    template = (TEMPLATES / f"{name}.jinja").read_text()
    assert parsers(facts, template, architecture) == tuple(expected)


def test_no_row_hides_another() -> None:
    seen: list[tuple[tuple[str, ...], str | None]] = []
    for row in FAMILIES:
        hidden = [
            marks for marks, architecture in seen
            if set(marks) <= set(row.marks) and architecture in (None, row.architecture)
        ]  # fmt: skip
        earlier = next((r for r in FAMILIES if r.marks in hidden and r.lacks), None)
        assert not hidden or earlier is not None, row.name
        seen.append((row.marks, row.architecture))


LISTED = """
import json
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
print(json.dumps([ToolParserManager.list_registered(), ReasoningParserManager.list_registered()]))
"""


@pytest.mark.engines
@pytest.mark.timeout(180)
def test_every_parser_of_the_table_is_one_that_the_installed_release_has() -> None:
    build = installed_vllm()
    if build is None:
        pytest.skip("vLLM is not installed (make vllm-env)")
    asked = [str(build.python), "-c", LISTED]
    said = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=150).stdout
    tools, thoughts = json.loads(said.splitlines()[-1])
    assert {f.tools for f in FAMILIES} - {None} <= set(tools)
    assert {f.reasoning for f in FAMILIES} - {None} <= set(thoughts)
