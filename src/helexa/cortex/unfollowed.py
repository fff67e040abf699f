"""What of cortex.toml is read at the start only: told of when the file says otherwise by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Final

import msgspec

from helexa.core.logging import Logger
from helexa.core.settings import SettingsError
from helexa.cortex.settings import CortexSettings
from helexa.cortex.watched import Watched

FOLLOWED: Final = ("neurons", "entitlements")


class UnfollowedFile:
    """cortex.toml as far as nobody follows it.

    Args:
        path: Watched; None is a gateway without a file.
        read: What it says now; blocking.
        begun: What we were started with.
    """

    def __init__(
        self,
        path: Path | None,
        read: Callable[[], CortexSettings],
        begun: CortexSettings,
        log: Logger,
    ) -> None:
        self._read = read
        self._begun = begun
        self._log = log
        self._told: list[str] = []
        self._watched = Watched(path)

    async def refresh(self, *, asked: bool = False) -> list[str]:
        """Tell of what has changed and waits for the next start; nothing is taken over.

        Args:
            asked: Tell of it again.
        """
        if not self._watched.changed(asked=asked):
            return []
        try:
            now = await asyncio.to_thread(self._read)
        except SettingsError:
            return []  # those who follow the rest of the file say so
        names = list(differing(self._begun, now, FOLLOWED))
        if names and (asked or names != self._told):
            what = "changed settings wait for the gateway's next start"
            self._log.warning(what, settings=names)
        self._told = names
        return []


def differing(
    one: msgspec.Struct, other: msgspec.Struct, besides: Container[str] = ()
) -> Iterator[str]:
    """The paths at which two values of a class differ, for example ``ledger.slice_tokens``."""
    for name in one.__struct_fields__:
        before, after = getattr(one, name), getattr(other, name)
        if name in besides or before == after:
            continue
        if isinstance(before, msgspec.Struct) and type(before) is type(after):
            yield from (f"{name}.{inner}" for inner in differing(before, after))
        else:
            yield name
