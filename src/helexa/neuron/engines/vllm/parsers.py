"""Which of vLLM's parsers reads a model family's tool calls and thoughts: a table.

A family is known by what its template writes, because that is what its model was trained to
write, and by its architecture where two families write alike. The names are those of vLLM 0.32;
a test compares them with the installed release. What is in no row is read by us (``wire``).
"""

from __future__ import annotations

import re

import msgspec

from helexa.neuron.models.facts import ModelFacts


class Family(msgspec.Struct, frozen=True):
    """One row.

    Args:
        marks: All of these occur in the template.
        architecture: And this matches the architecture, if given.
        tools, reasoning: vLLM's parsers; None where it has none that fits.
        lacks: None of these occurs.
    """

    name: str
    marks: tuple[str, ...]
    tools: str | None
    reasoning: str | None = None
    architecture: str | None = None
    lacks: tuple[str, ...] = ()


FAMILIES = (
    Family("gpt-oss", ("<|channel|>", "<|message|>"), "openai", "openai_gptoss"),
    Family("DeepSeek V3.1", ("<｜tool▁calls▁begin｜>", "thinking"), "deepseek_v31", "deepseek_v3",
           lacks=("```json",)),
    Family("DeepSeek V3, R1", ("<｜tool▁calls▁begin｜>",), "deepseek_v3", "deepseek_r1"),
    Family("Mistral with thoughts", ("[TOOL_CALLS]", "[THINK]"), "mistral", "mistral"),
    Family("Mistral", ("[TOOL_CALLS]",), "mistral"),
    Family("GLM 4.5 to 4.7", ("<tool_call>", "<arg_key>", "<think>"), "glm45", "glm45"),
    Family("Seed-OSS", ("<seed:tool_call>",), "seed_oss", "seed_oss"),
    Family("MiniMax M2", ("<minimax:tool_call>",), "minimax_m2", "minimax_m2"),
    Family("Step 3.5", ("<tool_call>", "<function="), "step3p5", "step3p5", r"^Step"),
    Family("Nemotron 3", ("<tool_call>", "<function=", "<think>"), "qwen3_coder", "nemotron_v3",
           r"^Nemotron"),
    Family("Qwen3.5", ("<tool_call>", "<function=", "<think>"), "qwen3_coder", "qwen3"),
    Family("Qwen3-Coder", ("<tool_call>", "<function="), "qwen3_coder"),
    Family("Kimi K2", ("<|tool_calls_section_begin|>",), "kimi_k2", "kimi_k2"),
    Family("Hunyuan", ("<tool_calls>", "<think>"), "hunyuan_a13b", "hunyuan_a13b", r"^HunYuan"),
    Family("Granite 4", ("<tool_call>",), "granite4", None, r"^Granite"),
    Family("Granite 3", ("<|tool_call|>",), "granite", "granite", r"^Granite"),
    Family("Ernie 4.5", ("<tool_call>", "<think>"), "ernie45", "ernie45", r"^Ernie"),
    Family("Qwen3, spark: ChatML with thoughts", ("<tool_call>", "<think>"), "hermes", "qwen3"),
    Family("Hermes, Qwen2.5: ChatML", ("<tool_call>",), "hermes"),
    Family("Llama 4", ("<|header_start|>",), "llama4_pythonic", None, r"^Llama4"),
    Family("Llama 3", ("<|start_header_id|>", '"parameters"'), "llama3_json", None, r"^Llama"),
    Family("Phi-4 mini", ("<|tool|>",), "phi4_mini_json", None, r"^Phi"),
    Family("Gemma 4", ("<|tool_call>",), "gemma4", "gemma4", r"^Gemma4"),
    Family("Gemma functions", ("<start_function_call>",), "functiongemma"),
    Family("Cohere Command A", ("<|START_ACTION|>",), "cohere_command3", "cohere_command3"),
    Family("xLAM", ("xlam",), "xlam"),
    Family("thoughts only", ("<think>", "</think>"), None, "deepseek_r1"),
)  # fmt: skip


def family_of(facts: ModelFacts) -> Family | None:
    """The first row that fits; None where no row does, or nothing needs parsing."""
    template = facts.chat_template
    if template is None:
        return None
    return next((row for row in FAMILIES if _fits(row, template, facts.architecture)), None)


def _fits(row: Family, template: str, architecture: str) -> bool:
    if row.architecture is not None and re.search(row.architecture, architecture) is None:
        return False
    return all(mark in template for mark in row.marks) and not any(
        mark in template for mark in row.lacks
    )
