"""The folders of the user who runs us, by the XDG Base Directory Specification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from helexa.core.settings_keys import SettingsError


def user_folder(variable: str, below: str, environ: Mapping[str, str]) -> Path:
    """``$variable``, else the folder ``below`` the user's home.

    Raises:
        SettingsError: The user has no home, as one that only a container's number names.
    """
    given = environ.get(variable)
    if given:
        return Path(given)
    try:
        return Path.home() / below
    except RuntimeError:
        raise SettingsError(
            f"this user has no home directory; set HOME, or {variable} to a folder that it may "
            "write to"
        ) from None
