"""The models that ship with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from helexa.core.errors import ModelNotFound
from helexa.neuron.sources.listing import Listing, Report
from helexa.neuron.sources.local import (
    arrived,
    listing_of_file,
    listing_of_folder,
    read_range,
)

BUILT_IN = "builtin"
"""The scheme of this source."""


class BuiltIn:
    """Models of the package.

    Args:
        files: Id → its GGUF file.
        folders: Id → the same model as a safetensors folder.
    """

    def __init__(
        self, files: Mapping[str, Path], folders: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        self._files = dict(files)
        self._folders = dict(folders)

    def claims(self, name: str) -> bool:
        return name in self._files

    async def describe(self, name: str, quant: str | None, form: str | None = None) -> Listing:
        del quant
        if form == "safetensors" and name in self._folders:
            return listing_of_folder(name, self._folders[name], None)
        path = self._files.get(name)
        if path is None:
            raise ModelNotFound(
                f"model {name} is not built in. Built in: {', '.join(sorted(self._files))}.",
                param="model_id",
            )
        return listing_of_file(name, path)

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        return await read_range(listing.file(file), start, length)

    async def fetch(self, listing: Listing, report: Report) -> Path:
        return arrived(listing, report)
