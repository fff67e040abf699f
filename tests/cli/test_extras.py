from __future__ import annotations

import pytest

from helexa.cli import extras
from helexa.core.settings import convert
from helexa.neuron.build import engines
from helexa.neuron.settings import NeuronSettings

OWN = {"engines": {"command": {"mine": {"command": ["serve", "{port}"]}}}}


def test_without_any_engine_the_command_to_type_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "ENGINES", ("no_such_engine",))
    with pytest.raises(SystemExit) as caught:
        extras.need_engine("neuron")
    assert caught.value.code == 3
    assert "pip install 'helexa[neuron]'" in capsys.readouterr().err


def test_an_engine_of_the_operators_own_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "ENGINES", ("no_such_engine",))
    monkeypatch.setattr(engines, "installed_version", lambda: None)
    monkeypatch.setattr(engines, "find_build", lambda *_: None)
    own = convert(OWN, NeuronSettings, "neuron.toml")
    assert engines.harnesses(own, {}) == ["mine"]
    extras.need_engine("neuron", elsewhere=lambda: bool(engines.harnesses(own, {})))
    assert engines.harnesses(NeuronSettings(), {}) == []
