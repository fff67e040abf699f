"""All sources of a node, and the way from a model id to its files.

::

    "hf:org/name" ─parse─▶ ModelRef("hf", "org/name") ─source of that scheme─▶ Listing ─▶ files
    "org/name"                        ─first that claims it, or the default─▶
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from helexa.neuron.sources.base import Source
from helexa.neuron.sources.ids import ModelRef, parse_model_id
from helexa.neuron.sources.listing import Listing, Report, silent


class Sources:
    """All configured sources; ``default`` gets what none of them claims.

    Args:
        by_scheme: In the order they are asked.
        default: Scheme for plain ``org/name`` ids.
    """

    def __init__(self, by_scheme: Mapping[str, Source], default: str) -> None:
        self._by_scheme = dict(by_scheme)
        self._default = default

    @property
    def schemes(self) -> tuple[str, ...]:
        """What may stand before the colon of a model id."""
        return tuple(self._by_scheme)

    def parse(self, model_id: str) -> ModelRef:
        """The reference behind ``model_id``; its ``name`` is the id to serve under."""
        return parse_model_id(model_id, frozenset(self._by_scheme))

    async def describe(
        self,
        model_id: str,
        *,
        source: str | None = None,
        quant: str | None = None,
        form: str | None = None,
    ) -> Listing:
        """The files of ``model_id`` and which of them are here; fetches nothing but names.

        Args:
            source: A scheme, a scheme with another name (``hf:org/other``), or a path; overrides
                what the id itself says.
            form: What is wanted of a model that is there as ``gguf`` and as ``safetensors``.

        Raises:
            ModelNotFound: No source has it; the message says where was looked.
            Forbidden: Its source does not let this node have it.
            ServiceUnavailable: Its source cannot be reached, and the files are not here.
            InvalidRequestBody: Unknown scheme.
        """
        ref = self.parse(model_id)
        served = ref.name
        if source in self._by_scheme:
            ref = ModelRef(source, ref.name)
        elif source:
            ref = self.parse(source)
        scheme = self._scheme(ref)
        listing = await self._by_scheme[scheme].describe(ref.name, quant, form)
        return msgspec.structs.replace(listing, name=served, scheme=scheme)

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        """Bytes ``[start, start + length)`` of a file of ``listing``, from wherever it is: a
        header can be read before its file is fetched. Fewer bytes at the file's end.

        Raises:
            KeyError: The listing has no such file.
            ServiceUnavailable: The source cannot be reached.
        """
        return await self._by_scheme[listing.scheme].peek(listing, file, start, length)

    async def fetch(self, listing: Listing, report: Report = silent) -> Path:
        """Bring what is missing of ``listing``.

        Returns:
            The weights' file (first shard) or folder.

        Raises:
            HelexaError: Why it cannot be had.
        """
        return await self._by_scheme[listing.scheme].fetch(listing, report)

    async def locate(
        self,
        model_id: str,
        *,
        source: str | None = None,
        quant: str | None = None,
        report: Report = silent,
    ) -> Path:
        """The file or folder of ``model_id``, fetched if need be; see ``describe``."""
        listing = await self.describe(model_id, source=source, quant=quant)
        return await self.fetch(listing, report)

    def _scheme(self, ref: ModelRef) -> str:
        if ref.scheme is not None:
            return ref.scheme
        claimed = (s for s, source in self._by_scheme.items() if source.claims(ref.name))
        return next(claimed, self._default)
