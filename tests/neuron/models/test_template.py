"""Reading a template's capabilities from its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.neuron.models.template import TemplateTraits, read_template, system_first

PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
SHIPPED = Path(__file__).parents[4] / "shared" / "templates"


def test_a_plain_template_has_nothing() -> None:
    assert read_template(PLAIN) == TemplateTraits()


@pytest.mark.parametrize("source", [
    "{%- if tools %}{{ tools | tojson }}{% endif %}",
    "{% for tool in tools %}{{ tool }}{% endfor %}",
    "{% if tools is not none and tools|length > 0 %}x{% endif %}",
    "{% set tools = tools if tools is defined else [] %}",
])  # fmt: skip
def test_tools_are_seen_where_the_variable_is_read(source: str) -> None:
    assert read_template(PLAIN + source).tools


@pytest.mark.parametrize("source", [
    "{# tools are not for us #}",
    "You may use tools.",
    "{{ 'You have tools' }}",
    "{{ message.tools }}",
    "{{ toolset }}",
])  # fmt: skip
def test_the_word_alone_is_no_capability(source: str) -> None:
    assert not read_template(PLAIN + source).tools


def test_reasoning_needs_both_markers() -> None:
    assert read_template("{{ '<think>' }}x{{ '</think>' }}").markers == ("<think>", "</think>")
    assert read_template("{{ '</think>' }}").markers is None


def test_the_switch_is_named() -> None:
    marked = "{{ '<think></think>' }}"
    assert read_template(marked + "{% if enable_thinking %}{% endif %}").switch == "enable_thinking"
    assert read_template(marked + "{% if thinking %}{% endif %}").switch == "thinking"
    assert read_template(marked).switch is None


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the templates of other models are not here")
@pytest.mark.parametrize(("name", "tools", "opening", "switch"), [
    ("Qwen-Qwen3-0.6B", True, "<think>", "enable_thinking"),
    ("Qwen3-Coder", True, None, None),
    ("Qwen3.5-4B", True, "<think>", "enable_thinking"),
    # It renders calls and results but never the offered tools: an engine would drop them.
    ("deepseek-ai-DeepSeek-V3.1", False, "<think>", "enable_thinking"),
    ("mistralai-Mistral-Nemo-Instruct-2407", True, None, None),
    ("openai-gpt-oss-120b", True, "<|channel|>analysis<|message|>", None),
])  # fmt: skip
def test_templates_as_models_ship_them(
    name: str, tools: bool, opening: str | None, switch: str | None
) -> None:
    traits = read_template((SHIPPED / f"{name}.jinja").read_text("utf-8"))
    assert (traits.tools, traits.markers and traits.markers[0], traits.switch) == (
        tools,
        opening,
        switch,
    )


@pytest.mark.parametrize(
    ("source", "first"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}", False),
        (("{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}"
         "{% endfor %}"), False),
        (("{{ messages[0].content }}{% for m in messages[1:] %}{% if m.role == 'user' %}"
         "{{ m.content }}{% endif %}{% endfor %}"), True),
        (("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}"
         "{{ raise_exception('No role here') }}{% endif %}{% endfor %}"), True),
        (("{% for m in messages %}{{ m.role }}{% if not loop.first %}"
         "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
         "{% endfor %}"), True),
        ("", False),
    ],
)  # fmt: skip
def test_a_template_that_refuses_or_loses_late_system_messages_is_known(
    source: str, first: bool
) -> None:
    assert system_first(source) is first


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Qwen-Qwen3-0.6B", False),
        ("Qwen3-Coder", False),
        ("Qwen3.5-4B", True),
        ("deepseek-ai-DeepSeek-V3.1", False),
        ("mistralai-Mistral-Nemo-Instruct-2407", True),
        ("openai-gpt-oss-120b", True),
    ],
)
def test_of_models_as_they_are_shipped_too(name: str, first: bool) -> None:
    file = SHIPPED / f"{name}.jinja"
    if not file.exists():
        pytest.skip("the shipped templates are not at hand")
    assert system_first(file.read_text()) is first
