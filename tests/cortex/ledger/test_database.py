from __future__ import annotations

from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
from helexa.cortex.ledger.database import check_url, sqlite_path, sqlite_url
from helexa.cortex.ledger.opening import default_url
from helexa.cortex.responses.build import beside


@pytest.mark.parametrize(
    "folder", ["/srv/a b", "/srv/häuser", "/srv/50%20 #1 ?", "/srv/two\nlines"]
)
def test_a_ledger_is_in_its_own_folder_whatever_that_is_called(folder: str) -> None:
    url = sqlite_url(Path(folder) / "ledger.db")
    assert sqlite_path(url) == f"{folder}/ledger.db"
    assert sqlite_path(beside(url)) == f"{folder}/responses.db"
    state = {"XDG_STATE_HOME": folder}
    assert sqlite_path(default_url(state)) == f"{folder}/helexa/ledger.db"


def test_what_an_address_says_beside_its_file_is_refused_and_not_dropped() -> None:
    assert sqlite_path("sqlite:////srv/ledger.db") == "/srv/ledger.db"
    for more in ("?mode=ro", "#1/ledger.db"):
        with pytest.raises(SettingsError, match="more than a path"):
            sqlite_path(f"sqlite:///srv/ledger{more}")


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://ledger.db", "sqlite:///srv/x.db?a=1"])
def test_a_check_refuses_an_address_that_a_start_would_refuse(url: str) -> None:
    with pytest.raises(SettingsError, match="write"):
        check_url(url)
