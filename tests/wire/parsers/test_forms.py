"""Which forms a template teaches, and whether its prompt opens a thought."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.wire.parsers.forms import forms_of, opens_thought

SHIPPED = Path(__file__).parents[4] / "shared" / "templates"


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the templates of other models are not here")
@pytest.mark.parametrize(("name", "forms", "opens"), [
    ("Qwen-Qwen3-0.6B", ["tagged", "function"], False),
    ("Qwen3-Coder", ["tagged", "function"], False),
    ("Qwen3.5-4B", ["tagged", "function"], True),
    ("deepseek-ai-DeepSeek-V3.1", ["sections"], True),
    ("mistralai-Mistral-Nemo-Instruct-2407", ["named"], False),
])  # fmt: skip
def test_templates_as_models_ship_them(name: str, forms: list[str], opens: bool) -> None:
    template = (SHIPPED / f"{name}.jinja").read_text("utf-8")
    assert [form.name for form in forms_of(template)] == forms
    assert opens_thought(template, "<think>") is opens


def test_the_widespread_forms_are_read_where_no_template_tells() -> None:
    assert [form.name for form in forms_of(None)] == ["tagged", "function"]
    assert [form.name for form in forms_of("{{ messages }}")] == ["tagged", "function"]


def test_llamas_template_teaches_the_bare_object() -> None:
    template = 'Respond in the format {"name": function name, "parameters": dictionary}.'
    assert [form.name for form in forms_of(template)] == ["bare"]
    assert [form.name for form in forms_of("<|python_tag|>")] == ["python_tag", "bare"]


@pytest.mark.parametrize(("tail", "opens"), [
    ("{{ '<|im_start|>assistant\\n<think>\\n' }}", True),
    ('{{ "<think>" }}', True),
    ("{{ '<think>\\n\\n</think>\\n\\n' }}", False),
    ("{{ '<|im_start|>assistant\\n' }}", False),
])  # fmt: skip
def test_a_prompt_that_ends_inside_a_thought_is_seen(tail: str, opens: bool) -> None:
    template = "{{ '<think>' }}{% if add_generation_prompt %}" + tail + "{% endif %}"
    assert opens_thought(template, "<think>") is opens
    assert opens_thought(None, "<think>") is False
