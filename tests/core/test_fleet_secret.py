"""The one secret of a fleet, from whichever place it is kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.core.fleet_secret import FleetSettings
from helexa.core.settings import Secret, SettingsError


def test_the_secret_comes_from_the_file_the_environment_or_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n", encoding="utf-8")
    assert FleetSettings(secret_file=file).resolve({}) == Secret("from-file")
    assert FleetSettings(secret_env="S").resolve({"S": "from-env\n"}) == Secret("from-env")
    assert FleetSettings(secret=Secret("plain")).resolve({}) == Secret("plain")
    assert FleetSettings().resolve({}) is None


def test_further_lines_of_the_file_are_what_a_node_takes_too(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    fleet = FleetSettings(secret_file=file)
    file.write_text("new\nold\n", encoding="utf-8")
    assert (fleet.resolve({}), fleet.others()) == (Secret("new"), (Secret("old"),))
    file.write_text("new\n", encoding="utf-8")
    assert fleet.others() == FleetSettings(secret=Secret("new")).others() == ()
    for text in ("\n", "new\n\nold\n", "new\n# the old one\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match=r"fleet\.secret_file"):
            fleet.resolve({})


@pytest.mark.parametrize(
    ("fleet", "where"),
    [
        (FleetSettings(secret_env="S"), "S is not set"),
        (FleetSettings(secret_file=Path("/nonexistent")), "fleet.secret_file: /nonexistent"),
        (FleetSettings(secret=Secret(" ")), "fleet.secret is empty"),
        (FleetSettings(secret=Secret("one\r\nx-other: two")), "one line"),
        (FleetSettings(secret=Secret("schlüssel")), "printable ASCII"),
        (FleetSettings(secret=Secret("a"), secret_env="S"), "one of"),
    ],
)
def test_a_secret_that_cannot_be_had_or_sent_stops_the_start(
    fleet: FleetSettings, where: str
) -> None:
    with pytest.raises(SettingsError, match=where):
        fleet.resolve({})
