"""What ``helexa up`` makes of the models it is given."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from helexa.cli.generated import Own, Places, models_toml, neuron_toml, own_model, welcome
from helexa.core.settings import convert
from helexa.cortex.profiles import Profiles
from helexa.neuron.settings import NeuronSettings


def test_a_file_is_served_under_its_name_and_found_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "my-Q8_0.gguf", tmp_path / "qwen3"
    file.touch()
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for text in ("my-Q8_0.gguf", "./my-Q8_0.gguf", str(file)):
        assert own_model(text) == Own("my-Q8_0", str(file))
    assert own_model("./qwen3") == Own("qwen3", str(folder))


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("org/name", Own("org/name")),
        ("org/name:Q4_K_M", Own("org/name:Q4_K_M")),
        ("hf:org/name", Own("org/name", "hf:org/name")),
        ("hf:org/name/file.gguf", Own("org/name/file.gguf", "hf:org/name/file.gguf")),
    ],
)
def test_a_name_is_looked_for_at_its_source(text: str, own: Own) -> None:
    assert own_model(text) == own


@pytest.mark.parametrize("text", ["./missing", "/missing.gguf", "missing.gguf"])
def test_a_path_where_nothing_is_is_refused_with_the_path(text: str) -> None:
    with pytest.raises(FileNotFoundError, match="/missing"):
        own_model(text)


def test_the_models_are_loaded_at_the_start_and_known_while_they_are_not() -> None:
    named = (Own("o'ne", '/models/a "b".gguf'), Own("org/name:Q4_K_M"))
    places = Places(1, 2, 3, None, "info", named)
    node = convert(tomllib.loads(neuron_toml(places, Path("/s"))), NeuronSettings, "neuron.toml")
    known = convert(tomllib.loads(models_toml(places)), Profiles, "models.toml")
    wanted = [("helexa/spark", None), *named]
    assert [(m.model_id, m.source) for m in node.default_models] == wanted
    assert [(m.id, m.source) for m in known.models] == wanted
    assert places.first == "o'ne"


def test_the_welcome_says_whether_the_model_is_there_yet() -> None:
    assert "model: m " in welcome("http://127.0.0.1:1", "m", ready=True)
    assert "on its way" not in welcome("http://127.0.0.1:1", "m", ready=True)
    assert "m is on its way" in welcome("http://127.0.0.1:1", "m", ready=False)
