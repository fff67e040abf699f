"""A message about a setting says at which line of the file it stands."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
from helexa.core.settings_lines import line_of, naming_lines

FILE = """\
# first
models_config = "models.toml"
[gateway]   # where
listen = "0.0.0.0:1"
"tls_cert" = "a"

[[neurons]]
name = "attic"
[[neurons]]
name = "cellar"
endpoint = "x"
[entitlements]
require_auth = true
[[entitlements.keys]]
account_id = "a"
[[entitlements.keys]]
account_id = "b"
window = { kind = "rolling", seconds = 5 }
[engines.command."my engine"]
command = [
  "serve",
]
[fleet]
a.b = 1
"""


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("models_config", 2),
        ("gateway", 3),
        ("gateway.listen", 4),
        ("gateway.tls_cert", 5),
        ("gateway.tls_key", 3),
        ("neurons[0]", 7),
        ("neurons[0].endpoint", 7),
        ("neurons[1].name", 10),
        ("entitlements.keys[1]", 16),
        ("entitlements.keys[1].account_id", 17),
        ("entitlements.keys[1].window.seconds", 18),
        ('engines.command."my engine".command[0]', 20),
        ("fleet.a.b", 24),
        ("nowhere.at.all", None),
        ("neurons[7].name", None),
    ],
)
def test_the_line_of_a_setting_is_found(setting: str, line: int | None) -> None:
    assert tomllib.loads(FILE)
    assert line_of(FILE, setting) == line


def test_what_stands_below_each_entry_of_a_list_is_told_apart() -> None:
    text = "[[models]]\nid = 'a'\n[models.cost]\ninput = 1\n[[models]]\nid = 'b'\n[models.cost]\n"
    assert line_of(text + "inptu = 2\n", "models[1].cost.inptu") == 8
    assert line_of(text, "models[0].cost.input") == 4


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("{file}: unknown key `neurons[1].nmae`; did you mean name?", 9),
        ("{file}: `gateway.listen` must be text in quotes, not 5", 4),
        ("{file}: neurons[1].name: there are two neurons called 'x'", 10),
        ("{file}: is not valid TOML: Expected ']' (at line 1, column 9)", None),
        ("CORTEX_GATEWAY__LISTEN in the environment: must be text", None),
        ("other.toml: `gateway.listen` must be text", None),
    ],
)
def test_an_error_about_a_file_gets_the_line_and_no_other_does(
    said: str, line: int | None, tmp_path: Path
) -> None:
    file = tmp_path / "cortex.toml"
    file.write_text(FILE)
    said = said.format(file=file)
    with pytest.raises(SettingsError) as raised, naming_lines(file):
        raise SettingsError(said)
    assert str(raised.value) == (said if line is None else f"{said} (at line {line})")
