"""The keys of cortex.toml, re-read while the gateway runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from helexa.cortex.entitlements import EntitlementSettings
from helexa.cortex.keys.fixed import fixed_of
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.watched import Watched


class KeysFile:
    """cortex.toml as far as its keys go; re-read when it changes.

    Args:
        path: Watched; None is a gateway without a file.
        read: What it says about keys now; blocking.
        environ: Where ``key_env`` is looked up: the process's own, which no file can change.
    """

    def __init__(
        self,
        path: Path | None,
        read: Callable[[], EntitlementSettings],
        keyring: Keyring,
        environ: Mapping[str, str],
    ) -> None:
        self._read = read
        self._keyring = keyring
        self._environ = environ
        self._watched = Watched(path)

    async def refresh(self, *, asked: bool = False) -> list[str]:
        """Take over what changed; what that was, in words.

        Args:
            asked: Read it even if it looks the same.

        Raises:
            SettingsError: The file cannot be used; the keys stay what they were.
        """
        if not self._watched.changed(asked=asked):
            return []
        given = await asyncio.to_thread(self._read)
        return await self._keyring.follow_settings(fixed_of(given, self._environ))
