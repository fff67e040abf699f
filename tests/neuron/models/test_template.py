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


def test_a_prompt_that_may_begin_inside_the_think_block_is_known() -> None:
    marked = "{{ m.content.split('</think>') }}{% if add_generation_prompt %}"
    assert read_template(marked + "{{ '<think>\\n' }}{% endif %}").opens
    assert read_template(marked + "<|assistant|><think>{% endif %}").opens
    assert not read_template(marked + "{{ '<think></think>' }}{% endif %}").opens
    assert not read_template("{{ '<think></think>' }}" + PLAIN).opens


def test_how_hard_to_think_is_asked_for_in_levels() -> None:
    asks = "{% if reasoning_effort == 'max' or reasoning_effort in ('none', 'low') %}{% endif %}"
    found = read_template(asks)
    assert (found.effort, found.levels) == ("reasoning_effort", ("max", "none", "low"))
    passed_on = read_template("{{ 'Effort: ' + thinking_effort }}")
    assert (passed_on.effort, passed_on.levels) == ("thinking_effort", ("low", "medium", "high"))
    assert read_template("{{ message.reasoning_effort }}").effort is None


def test_places_for_pictures_and_sounds_are_seen() -> None:
    assert read_template("{{ '<|vision_start|>' }}").images
    assert read_template("{% if item.type == 'input_audio' %}<|audio|>{% endif %}").audio
    assert not read_template("{# <image> <|audio|> #}" + PLAIN).images


def test_tags_inside_strings_and_mappings_end_no_code() -> None:
    source = "{{ '}}' + tools }}{% set x = '%}' if enable_thinking %}{{ {'a': {}} }}<think></think>"
    found = read_template(source)
    assert (found.tools, found.switch) == (True, "enable_thinking")


@pytest.mark.parametrize("piece", [
    "{#", "{{", "{%", "{", "'", "{{ '", "{{ (", "raise_exception(", "{% for m in ",
    "{% for m in messages %}{{", "{{ '\\", "{# #}", "{{ tools }}", "<think>", "role", " " * 7,
])  # fmt: skip
def test_a_hostile_template_is_read_in_linear_time_and_never_run(piece: str) -> None:
    source = piece * (500_000 // len(piece))
    read_template(source)  # quadratic would take hours, and the suite ends a test long before
    system_first(source)


def test_a_template_that_would_never_end_is_only_read() -> None:
    bomb = (
        "{% for a in range(10**9) %}{% for b in range(10**9) %}{{ tools }}{% endfor %}{% endfor %}"
    )
    assert read_template(bomb).tools
    assert read_template("{{ ''.__class__.__mro__[1].__subclasses__() }}") == TemplateTraits()


CHATML = ("<think>", "</think>")
HARMONY = ("<|channel|>analysis<|message|>", "<|end|>")


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the templates of other models are not here")
@pytest.mark.parametrize(("name", "traits"), [
    # Renders offered tools; an empty think block is written when thinking is off.
    ("Qwen-Qwen3-0.6B", TemplateTraits(True, CHATML, "enable_thinking")),
    # Tools as XML; does not think.
    ("Qwen3-Coder", TemplateTraits(True)),
    # Thinks unless told not to, and then the prompt itself opens the block; has places for images.
    ("Qwen3.5-4B", TemplateTraits(True, CHATML, "enable_thinking", opens=True, images=True)),
    # Renders calls and results but never the offered tools: an engine would drop them. With the
    # switch on the prompt opens the block.
    ("deepseek-ai-DeepSeek-V3.1", TemplateTraits(False, CHATML, "enable_thinking", opens=True)),
    ("mistralai-Mistral-Nemo-Instruct-2407", TemplateTraits(True)),
    # Passes the effort on as it is; says in a comment that it defaults to medium.
    ("openai-gpt-oss-120b", TemplateTraits(
        True, HARMONY, effort="reasoning_effort", levels=("low", "medium", "high"))),
])  # fmt: skip
def test_templates_as_models_ship_them(name: str, traits: TemplateTraits) -> None:
    assert read_template((SHIPPED / f"{name}.jinja").read_text("utf-8")) == traits


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
