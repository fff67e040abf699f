"""Which forms a template teaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.wire.parsers.forms import forms_of

SHIPPED = Path(__file__).parents[4] / "shared" / "templates"


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="the templates of other models are not here")
@pytest.mark.parametrize(("name", "forms"), [
    ("Qwen-Qwen3-0.6B", ["tagged", "function"]),
    ("Qwen3-Coder", ["tagged", "function"]),
    ("Qwen3.5-4B", ["tagged", "function"]),
    ("deepseek-ai-DeepSeek-V3.1", ["sections"]),
    ("mistralai-Mistral-Nemo-Instruct-2407", ["named"]),
])  # fmt: skip
def test_templates_as_models_ship_them(name: str, forms: list[str]) -> None:
    template = (SHIPPED / f"{name}.jinja").read_text("utf-8")
    assert [form.name for form in forms_of(template)] == forms


def test_the_widespread_forms_are_read_where_no_template_tells() -> None:
    assert [form.name for form in forms_of(None)] == ["tagged", "function"]
    assert [form.name for form in forms_of("{{ messages }}")] == ["tagged", "function"]


def test_llamas_template_teaches_the_bare_object() -> None:
    template = 'Respond in the format {"name": function name, "parameters": dictionary}.'
    assert [form.name for form in forms_of(template)] == ["bare"]
    assert [form.name for form in forms_of("<|python_tag|>")] == ["python_tag", "bare"]
