"""Files and folders of this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from helexa.core.errors import ModelNotFound, ServiceUnavailable
from helexa.neuron.sources.choice import choose_files, is_beside_weights
from helexa.neuron.sources.listing import ListedFile, Listing, Progress, Report, listing_of


class NotHere(ModelNotFound):
    """There is no such file; a disk that is mounted later may bring it."""

    lasting = False


class LocalFiles:
    """Paths of files and folders, and names of files under ``roots``."""

    def __init__(self, roots: tuple[Path, ...] = ()) -> None:
        self._roots = roots

    def claims(self, name: str) -> bool:
        return name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf")

    async def describe(self, name: str, quant: str | None, form: str | None = None) -> Listing:
        del form
        try:
            return await asyncio.to_thread(self._find, name, quant)
        except OSError as error:
            where = error.filename or name
            raise ServiceUnavailable(
                f"model {name} cannot be read: {where}: {error.strerror}. Check that the node's "
                "user may read it."
            ) from error
        except RuntimeError as error:  # of ``expanduser``
            raise NotHere(
                f"model {name} was not found: there is no such home directory.", param="model_id"
            ) from error

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        return await read_range(listing.file(file), start, length)

    async def fetch(self, listing: Listing, report: Report) -> Path:
        return arrived(listing, report)

    def _find(self, name: str, quant: str | None) -> Listing:
        direct = Path(name).expanduser()
        places = [direct] if self.claims(name) or not self._roots else []
        places += [root.expanduser() / name for root in self._roots]
        for place in places:
            if place.is_file():
                return listing_of_file(name, place)
            if place.is_dir():
                return listing_of_folder(name, place, quant)
        looked = ", ".join(str(place.absolute()) for place in places)
        raise NotHere(f"model {name} was not found. Looked for {looked}.", param="model_id")


def listing_of_file(name: str, path: Path) -> Listing:
    """One file that was named outright, with the shards and the projector beside it."""
    beside = [file for file in path.parent.iterdir() if file.suffix == ".gguf"]
    if path.suffix != ".gguf" or path not in beside or is_beside_weights(path.name):
        return listing_of(name, "", (_here(path.name, path),), path)
    choice = choose_files(str(path.parent), [f.name for f in beside], path.name)
    files = tuple(_here(each, path.parent / each) for each in choice.files)
    return listing_of(name, "", files, path, quant=choice.quant, quants=choice.quants)


def listing_of_folder(name: str, folder: Path, quant: str | None) -> Listing:
    """The one model in ``folder``.

    Raises:
        ModelNotFound: None, or several and ``quant`` does not single one out.
    """
    found = sorted(file.name for file in folder.iterdir() if file.is_file())
    if not any(name.endswith((".gguf", ".safetensors")) for name in found):
        found += [f.relative_to(folder).as_posix() for f in folder.glob("*/*") if f.is_file()]
    choice = choose_files(f"folder {folder}", found, quant)
    files = tuple(_here(each, folder / each) for each in choice.files)
    path = folder / choice.first if choice.first else folder
    return listing_of(name, "", files, path, quant=choice.quant, quants=choice.quants)


async def read_range(file: ListedFile, start: int, length: int) -> bytes:
    """Bytes ``[start, start + length)`` of a file that is here.

    Raises:
        ModelNotFound: It is not any more.
    """
    if file.path is None:
        raise ModelNotFound(f"file {file.name} is not on this machine.", param="model_id")
    return await asyncio.to_thread(_pread, file.path, start, length)


def arrived(listing: Listing, report: Report) -> Path:
    """The path of a listing whose files are all here."""
    if listing.path is None:
        raise ModelNotFound(f"files of {listing.name} are not on this machine.", param="model_id")
    report(Progress(listing.bytes_total, listing.bytes_total))
    return listing.path


def _here(name: str, path: Path) -> ListedFile:
    size = path.stat().st_size
    return ListedFile(name, size, path, have=size)


def _pread(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, start)
