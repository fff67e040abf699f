"""Paths that a settings file names: relative ones are beside the file, wherever one starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helexa.core.settings_keys import alternatives, element_type, struct_fields, value_type


def beside(value: Any, kind: Any, folder: Path) -> Any:
    """``value`` of a settings file with every relative path in it as one below ``folder``.

    What is no path by ``kind``, or is not what ``kind`` takes, stays as it is.
    """
    if isinstance(value, Mapping):
        fields, free = struct_fields(kind) or {}, value_type(kind)
        return {key: beside(item, fields.get(key, free), folder) for key, item in value.items()}
    if isinstance(value, list):
        element = element_type(kind)
        return [beside(item, element, folder) for item in value]
    if isinstance(value, str) and Path in alternatives(kind) and not value.startswith("~"):
        return str(folder / value)
    return value
