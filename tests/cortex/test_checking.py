"""What ``helexa cortex --check`` says beside whether a gateway would start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from helexa.core.fleet_secret import FleetSettings
from helexa.core.settings import SettingsError
from helexa.cortex.build.checking import check
from helexa.cortex.settings import CortexSettings, NeuronSettings, load_settings

ATTIC = NeuronSettings("attic", "http://127.0.0.1:9")


def doubts(settings: CortexSettings) -> list[str]:
    return check(settings, {})[1]


def test_a_model_that_is_pinned_on_a_node_which_nobody_has_named_is_doubted(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models.toml"
    models.write_text("[[models]]\nid = 'a/b'\npinned_on = ['attic', 'atic']\n")
    assert doubts(CortexSettings(models, neurons=(ATTIC,))) == [
        "'a/b' is pinned on 'atic', which is not a node of cortex.toml; did you mean 'attic'?"
    ]


def test_a_secret_that_everybody_can_read_is_doubted(tmp_path: Path) -> None:
    secret = tmp_path / "fleet.secret"
    secret.write_text("shared-by-all\n")
    settings = CortexSettings(fleet=FleetSettings(secret_file=secret))
    secret.chmod(0o640)
    assert doubts(settings) == []
    secret.chmod(0o644)
    [doubt] = doubts(settings)
    assert doubt.startswith("fleet.secret_file: every user of this machine can read")


def test_what_there_is_one_of_is_counted_as_one() -> None:
    assert check(CortexSettings(neurons=(ATTIC,)), {}) == (
        "1 node, 0 models, 0 aliases, 0 keys",
        [],
    )


def test_a_ledger_without_its_driver_would_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ledger = msgspec.structs.replace(CortexSettings().ledger, url="postgresql://me@db/helexa")
    with pytest.raises(SettingsError, match=r"pip install 'helexa\[postgres\]'"):
        check(CortexSettings(ledger=ledger), {})


def test_a_value_of_the_environment_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cortex.toml"
    file.write_text("[gateway]\nmetrics_listen = 'nowhere'\n")
    with pytest.raises(SettingsError, match=r"cortex.toml: gateway.metrics_listen: 'nowhere'"):
        load_settings(file, {}, {"CORTEX_GATEWAY__LISTEN": "127.0.0.1:0"})
    with pytest.raises(
        SettingsError, match=r"^CORTEX_GATEWAY__LISTEN in the environment: 'everywhere' is not"
    ):
        load_settings(file, {}, {"CORTEX_GATEWAY__LISTEN": "everywhere"})
