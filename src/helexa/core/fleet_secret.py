"""``[fleet]`` of gateways and of nodes: the one secret by which they know each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from helexa.core.settings import Secret, SettingsError


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[fleet]``: the secret, given in at most one of three ways.

    Args:
        secret: The secret itself.
        secret_env: Environment variable that holds it.
        secret_file: File that holds it in its first line. Secrets in further lines are what a
            node takes too, while the fleet's is being changed.
    """

    secret: Secret | None = None
    secret_env: str | None = None
    secret_file: Path | None = None

    def resolve(self, environ: Mapping[str, str]) -> Secret | None:
        """The secret itself, from wherever it is kept; None when there is none.

        Raises:
            SettingsError: It is given twice, not where it should be, or no header can carry it.
        """
        if sum(x is not None for x in (self.secret, self.secret_env, self.secret_file)) > 1:
            raise SettingsError("fleet: give one of secret, secret_env and secret_file")
        if self.secret is not None:
            return _usable(self.secret.reveal(), "fleet.secret")
        if self.secret_env is not None:
            where = f"fleet.secret_env: {self.secret_env}"
            if not environ.get(self.secret_env):
                raise SettingsError(f"{where} is not set or empty")
            return _usable(environ[self.secret_env], where)
        if self.secret_file is not None:
            return self._lines(self.secret_file)[0]
        return None

    def others(self) -> tuple[Secret, ...]:
        """What a node takes beside the secret; raises as ``resolve``."""
        return () if self.secret_file is None else self._lines(self.secret_file)[1:]

    @staticmethod
    def _lines(path: Path) -> tuple[Secret, ...]:
        lines = _text(path).strip().splitlines()
        return tuple(_usable(line, f"fleet.secret_file: {path}") for line in lines or [""])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"fleet.secret_file: {path} cannot be read: {why}") from error


def _usable(value: str, where: str) -> Secret:
    """It travels in a header; the line end of a file or a shell is no part of it."""
    value = value.strip()
    if not value:
        raise SettingsError(f"{where} is empty; set it or remove [fleet]")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise SettingsError(
            f"{where}: a secret is one line of printable ASCII without spaces; "
            "make one with `openssl rand -hex 32`"
        )
    return Secret(value)
