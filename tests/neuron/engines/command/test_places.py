"""The places of a command line, and what is wrong with a section."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from helexa.core.settings import SettingsError
from helexa.neuron.build.engines import command_engines
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.command.places import KNOWN, fill
from helexa.neuron.settings import CommandSettings, EnginesSettings, NeuronSettings


def made(**given: Any) -> CommandEngine:
    section = msgspec.convert({"command": ["serve", "{port}"], **given}, CommandSettings)
    return CommandEngine("mine", section, os.environ)


def test_places_are_filled_wherever_they_stand() -> None:
    values = {"port": 80, "model": "/m"}
    assert fill("--model={model}:{port}", values) == "--model=/m:80"
    assert fill("{{port}} {other} {}", values) == "{port} {other} {}"
    assert fill('{"enable_thinking": true}', values) == '{"enable_thinking": true}'


def test_a_place_that_is_unknown_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SettingsError) as caught:
        made(command=["serve", "--model", "{modle}", "{port}"])
    said = str(caught.value)
    assert "engines.command.mine.command has an unknown place {modle}" in said
    assert "did you mean {model}?" in said
    assert all(f"{{{name}}}" in said for name in KNOWN)


@pytest.mark.parametrize(("given", "said"), [
    ({"command": []}, "engines.command.mine.command is empty"),
    ({"command": ["serve"]}, "has no {port}"),
    ({"command": ["serve", "{port}", "--api-key", "{key}"]}, "{key_file}"),
    ({"env": {"API_KEY": "{key}"}}, "{env_file}"),
    ({"env": {"X": "{y}"}}, "engines.command.mine.env has an unknown place {y}"),
    ({"model_name": "{nobody}"}, "engines.command.mine.model_name has an unknown place"),
])  # fmt: skip
def test_a_section_that_cannot_work_is_refused_at_the_start(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        made(**given)
    assert said in str(caught.value)


def test_a_port_in_the_environment_is_a_port() -> None:
    made(command=["ollama", "serve"], env={"OLLAMA_HOST": "{host}:{port}"})


def test_the_name_of_an_engine_of_ours_is_taken() -> None:
    section = CommandSettings(command=["serve", "{port}"])
    settings = NeuronSettings(engines=EnginesSettings(command={"llamacpp": section}))
    with pytest.raises(SettingsError) as caught:
        command_engines(settings, os.environ)
    assert "engines.command.llamacpp has the name of a built-in engine" in str(caught.value)
