"""What every source can do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from helexa.neuron.sources.listing import Listing, Report


class Source(Protocol):
    """One place that has models."""

    def claims(self, name: str) -> bool:
        """Whether ``name`` can only mean a model of this source; pure, no I/O."""

    async def describe(self, name: str, quant: str | None, form: str | None = None) -> Listing:
        """The files of a model, and which of them are here.

        Args:
            form: ``gguf`` or ``safetensors``, for a source that has both and no quant to tell
                them apart.

        Raises:
            ModelNotFound: There is no such model, or not of that quant; says what there is.
            Forbidden: The source does not let this node have it; says what to set.
            ServiceUnavailable: The source cannot be reached and the files are not here.
        """

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        """Bytes ``[start, start + length)`` of a file, from wherever it is; fewer at its end.

        Raises:
            KeyError: The listing has no such file.
            ServiceUnavailable: The source cannot be reached.
        """

    async def fetch(self, listing: Listing, report: Report) -> Path:
        """Bring what is missing; the weights' file (first shard) or folder.

        Cancelling it leaves the bytes that have arrived for the next attempt.

        Raises:
            HelexaError: Why it cannot be had, as for ``describe``, or no room on the disk.
        """
