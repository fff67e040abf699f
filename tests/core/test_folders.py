from __future__ import annotations

from pathlib import Path

import pytest

from helexa.core.folders import user_folder
from helexa.core.settings import SettingsError


def test_a_folder_is_the_variable_s_or_below_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert user_folder("XDG_STATE_HOME", ".local/state", {}) == Path("/home/ada/.local/state")
    given = {"XDG_STATE_HOME": "/state"}
    assert user_folder("XDG_STATE_HOME", ".local/state", given) == Path("/state")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert user_folder("XDG_CACHE_HOME", ".cache", {"XDG_CACHE_HOME": "/cache"}) == Path("/cache")
    with pytest.raises(SettingsError, match="no home directory; set HOME, or XDG_CACHE_HOME to"):
        user_folder("XDG_CACHE_HOME", ".cache", {})
