"""Settings: defaults < file < environment < flags, converted once into a frozen struct.

::

    cortex.toml ──┐
    CORTEX_A__B ──┼─ deep merge of plain tables ─▶ unknown keys refused by path ─▶ frozen struct
    flags ────────┘

A named file that is missing or broken, an unknown key and a wrong type raise ``SettingsError``
with one message that says where and what to do. A missing file at a default path and an unknown
name with our prefix in the environment are warnings. A relative path is beside the file that names
it; one from environment or flags is below the working directory. All become absolute.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from helexa.core.settings_env import table_from_environ
from helexa.core.settings_keys import SettingsError, check_keys, known_paths, nearest
from helexa.core.settings_lines import naming_lines
from helexa.core.settings_paths import beside
from helexa.core.settings_words import in_words

T = TypeVar("T")

__all__ = ["Loaded", "Secret", "SettingsError", "convert", "load", "read_file"]


class Secret:
    """A string that masks itself wherever it is shown; ``reveal()`` gives it back."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Call this where it is used, never to store it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"

    def __str__(self) -> str:
        return "***" if self._value else ""

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def as_header(key: str) -> str:
    """A key as a header carries it: without the line break of the file that it came from.

    Raises:
        SettingsError: It has what no header can carry.
    """
    value = key.strip()
    if not (value.isascii() and value.isprintable()):
        raise SettingsError(
            "the key has characters other than printable ASCII: no header has those"
        )
    return value


class Loaded(Generic[T]):
    """What ``load`` found.

    Args:
        value: The frozen settings.
        warnings: Sentences for the log, in order.
        path: The file that was read; None when defaults and environment were all there was.
    """

    __slots__ = ("path", "value", "warnings")

    def __init__(self, value: T, warnings: tuple[str, ...], path: Path | None) -> None:
        self.value = value
        self.warnings = warnings
        self.path = path

    def __repr__(self) -> str:
        return f"Loaded(value={self.value!r}, warnings={self.warnings!r}, path={self.path!r})"


def load(
    kind: type[T],
    *,
    prefix: str,
    path: Path | None,
    default_path: Path,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    reserved: frozenset[str] = frozenset(),
) -> Loaded[T]:
    """Read, merge and convert one role's settings.

    Args:
        kind: A frozen msgspec struct; nested structs are tables.
        prefix: Of environment names, with its underscore: ``CORTEX_``.
        path: The file the operator named; must exist.
        default_path: Read when none was named; may be missing.
        flags: Dotted paths to values, for example ``{"gateway.listen": "0.0.0.0:0"}``; None is
            a flag that was not given.
        environ: The environment.
        reserved: Names with the prefix that mean something else and are left alone.

    Raises:
        SettingsError: With everything the operator needs to find and mend the line.
    """
    warnings: list[str] = []
    chosen = path or default_path
    table: dict[str, Any] = {}
    if path is not None or chosen.is_file():
        table = beside(read_file(chosen), kind, chosen.parent.absolute())
        read: Path | None = chosen
    else:
        read = None
        warnings.append(f"no settings file at {chosen}; running on defaults and the environment")
    overrides, unknown = table_from_environ(environ, prefix, kind, reserved, _fits)
    warnings += [_unknown_name(name, prefix, kind) for name in unknown]
    merge(table, overrides)
    for dotted, value in flags.items():
        if value is not None:
            merge(table, _nest(dotted.split("."), value))
    with naming_lines(read):
        return Loaded(convert(table, kind, str(chosen)), tuple(warnings), read)


def read_file(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        SettingsError: It cannot be read, or does not parse (with line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}{_hint(str(error))}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is nested too deeply") from error


_BARE = ("Invalid value", "Expected newline or end of document after a statement")
"""What the parser says of ``listen = localhost``, ``0.0.0.0:80`` and ``True``."""


def _hint(said: str) -> str:
    bare = said.startswith(_BARE)
    return "; text goes in quotes, and true and false in small letters" if bare else ""


def convert(table: Mapping[str, Any], kind: type[T], where: str) -> T:
    """``table`` as a ``kind``; unknown keys and wrong types are refused by path.

    Args:
        where: The file, for messages.

    Raises:
        SettingsError: With the path of the offending key.
    """
    check_keys(table, kind, where)
    try:
        return msgspec.convert(table, kind, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {in_words(str(error), table, kind)}") from error


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Deep-merge ``other`` into ``into``; tables are merged, everything else is replaced."""
    for key, value in other.items():
        present = into.get(key)
        if isinstance(present, dict) and isinstance(value, Mapping):
            merge(present, value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _unknown_name(name: str, prefix: str, kind: Any) -> str:
    known = ["__".join(path).upper() for path in known_paths(kind)]
    close = nearest(name.removeprefix(prefix), known)
    hint = f"; did you mean {prefix}{close}?" if close else ""
    return f"{name} in the environment is unknown and ignored{hint}"


def _nest(parts: list[str], value: object) -> dict[str, Any]:
    return {parts[0]: value if len(parts) == 1 else _nest(parts[1:], value)}


def _fits(value: object, kind: Any) -> object:
    return msgspec.convert(value, kind, dec_hook=_dec_hook)


def _dec_hook(kind: type[Any], value: object) -> object:
    if kind is object:
        return value
    if kind not in (Secret, Path):
        raise NotImplementedError(f"settings cannot hold a {kind.__name__}")
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Secret(value) if kind is Secret else _path(value)


def _path(value: str) -> Path:
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{value!r}: there is no such home directory") from error
