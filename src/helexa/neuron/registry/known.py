"""What headers have said, kept by what the files are: a model is read once, wherever it lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.listed import Remote, remote_facts
from helexa.neuron.sources.listing import Listing

MOST = 256
"""Models remembered; the longest unused is forgotten."""
_LEAST_TIMED = 256 << 10
"""Fewer bytes say more about the way there than about its width."""


class Peeker(Protocol):
    """The part of ``Sources`` that is used."""

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        """Bytes of a file, from wherever it is."""


class Read(msgspec.Struct, frozen=True):
    """Facts, and what reading them took.

    Args:
        rate: Bytes per second from the source; None when nothing worth timing was read.
    """

    facts: ModelFacts
    rate: float | None = None


class KnownFacts:
    """Facts by the files they were read from; sizes, times and digests are the key.

    Args:
        inspect: Reads the files of a model that is here (blocking).
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        peeker: Peeker,
        inspect: Callable[[Path, str], ModelFacts],
        clock: Callable[[], float],
    ) -> None:
        self._peeker = peeker
        self.inspect = inspect
        self._clock = clock
        self._known: dict[tuple[object, ...], Read] = {}

    async def of(self, listing: Listing) -> Read:
        """The facts of a listing, from its files here or where they lie.

        Raises:
            BadModelFile: A file states what cannot be.
            ServiceUnavailable: The source cannot be reached.
        """
        key = await asyncio.to_thread(_key, listing)
        found = self._known.pop(key, None)
        if found is None:
            found = await self._read(listing)
        self._known[key] = found
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return found

    async def _read(self, listing: Listing) -> Read:
        if listing.path is not None:
            return Read(await asyncio.to_thread(self.inspect, listing.path, listing.name))
        taken, spent = 0, 0.0

        async def peek(name: str, start: int, length: int) -> bytes:
            nonlocal taken, spent
            began = self._clock()
            data = await self._peeker.peek(listing, name, start, length)
            if listing.file(name).path is None:
                spent += self._clock() - began
                taken += len(data)
            return data

        files = [(file.name, file.size) for file in listing.files]
        where = f"{listing.scheme}:{listing.repository}"
        facts = await remote_facts(Remote(listing.name, where, files), peek)
        rate = taken / spent if taken >= _LEAST_TIMED and spent > 0 else None
        return Read(facts, rate)


def _key(listing: Listing) -> tuple[object, ...]:
    """What the files are: another size, time or digest is another model (blocking)."""
    files = []
    for file in listing.files:
        changed = file.path.stat().st_mtime_ns if file.path is not None else file.digest
        files.append((file.name, file.size, changed))
    return (listing.name, listing.scheme, str(listing.path), listing.revision, *files)
