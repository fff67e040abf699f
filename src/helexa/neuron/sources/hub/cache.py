"""What of a hub's repositories is on this machine.

The layout is ``huggingface_hub``'s own, documented in its guide "Understand caching"::

    models--org--name/
      blobs/<tag>               contents; <tag>.incomplete while one is on its way
      snapshots/<commit>/<file> links to blobs
      refs/main                 the commit that main was
    .locks/models--org--name/<tag>.lock
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from helexa.core.errors import ModelNotFound, ServiceUnavailable
from helexa.neuron.sources.choice import Choice, choose_files, quant_in
from helexa.neuron.sources.fetching.job import FileJob
from helexa.neuron.sources.fetching.transfer import incomplete
from helexa.neuron.sources.hub.api import RemoteFile
from helexa.neuron.sources.hub.names import HubName
from helexa.neuron.sources.listing import ListedFile, Listing, listing_of

SPARE_BYTES = 64 << 20
"""Left free on the disk beside a model."""


class Cache:
    """One cache folder. Every method blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, repository: str) -> Path:
        """Where a repository's files are."""
        return self.root / f"models--{repository.replace('/', '--')}"

    def listed(self, repository: str, revision: str, file: RemoteFile) -> ListedFile:
        """One file of a repository, with what of it is here."""
        path = self._pointer(repository, revision, file.name)
        if _size(path) == file.size:
            return ListedFile(file.name, file.size, path, file.digest, file.size, file.tag)
        blob = self.folder(repository) / "blobs" / file.tag
        here = _size(blob)
        have = here if here == file.size else min(file.size, max(0, _size(incomplete(blob))))
        return ListedFile(file.name, file.size, None, file.digest, have, file.tag)

    def job(self, repository: str, revision: str, file: ListedFile, url: str) -> FileJob:
        """How to bring one file."""
        folder = self.folder(repository)
        return FileJob(
            file.name,
            url,
            file.size,
            file.digest,
            str(folder / "blobs" / file.tag),
            str(self._pointer(repository, revision, file.name)),
            str(self.root / ".locks" / folder.name / f"{file.tag}.lock"),
        )

    def _remember(self, repository: str, branch: str, revision: str) -> None:
        """Write down which commit a branch is.

        Raises:
            ServiceUnavailable: The folder cannot be written.
        """
        path = self.folder(repository) / "refs" / branch
        try:
            if path.is_file() and path.read_text() == revision:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            fresh.write_text(revision)
            fresh.replace(path)
        except OSError as error:
            raise cannot_write(self.root, error) from error

    def check_room(self, listing: Listing) -> None:
        """Check that what is missing fits on the disk.

        Raises:
            ServiceUnavailable: It does not, with the figures; or the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise cannot_write(self.root, error) from error
        if listing.bytes_missing + SPARE_BYTES > free:
            raise no_room(self.root, listing.name, listing.bytes_missing, free)

    def free(self) -> int:
        """Bytes that are free on its disk; 0 when that cannot be told."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return 0

    def weights(self, repository: str, revision: str, choice: Choice) -> Path:
        """What an engine is given: the weights' first file, or their folder."""
        folder = self._pointer(repository, revision, "")
        return folder / choice.first if choice.first else folder

    def settle(self, listing: Listing) -> Path:
        """After a fetch: all is here, and the branch is the commit it was fetched from.

        Raises:
            ServiceUnavailable: Somebody has removed files meanwhile.
        """
        wanted = HubName.of(listing.repository)
        folder = self._pointer(wanted.repository, listing.revision, "")
        gone = [f.name for f in listing.files if _size(folder / f.name) != f.size]
        if gone:
            raise ServiceUnavailable(
                f"{folder / gone[0]} has gone while {listing.name} was fetched; ask again."
            )
        self._remember(wanted.repository, wanted.revision or "main", listing.revision)
        names = [file.name for file in listing.files]
        first = choose_files(listing.repository, names, None).first
        return folder / first if first else folder

    def offline(self, repository: str, revision: str | None, quant: str | None) -> Listing | None:
        """The model as far as the cache knows it: all of it, or None.

        A cache does not know what it lacks, but weights are fetched last and name their shards:
        who has them all has everything.
        """
        for commit, folder in self._snapshots(repository, revision):
            try:
                choice = choose_files(f"the cache of {repository}", _names(folder), quant)
            except ModelNotFound:
                continue
            if _has_shards(folder, choice):
                return self._listing(repository, commit, folder, choice)
        return None

    def quants(self, repository: str) -> list[str]:
        """Every quant that some of is here."""
        snapshots = [folder for _, folder in self._snapshots(repository, None)]
        names = [name for folder in snapshots for name in _names(folder)]
        weights = [name for name in names if name.endswith(".gguf") and "mmproj" not in name]
        return sorted({quant for name in weights if (quant := quant_in(name))})

    def _listing(self, repository: str, commit: str, folder: Path, choice: Choice) -> Listing:
        files = tuple(
            ListedFile(name, size, folder / name, have=size)
            for name in choice.files
            for size in (_size(folder / name),)
        )
        path = folder / choice.first if choice.first else folder
        return listing_of(
            repository, "", files, path,
            quant=choice.quant, quants=choice.quants, revision=commit,
        )  # fmt: skip

    def _snapshots(self, repository: str, revision: str | None) -> Iterator[tuple[str, Path]]:
        """What may be served, best first: the branch as last seen, then whatever is newest."""
        folder = self.folder(repository)
        ref = folder / "refs" / (revision or "main")
        named = ref.read_text().strip() if ref.is_file() else (revision or "")
        found = [p for p in folder.glob("snapshots/*") if p.is_dir()]
        found.sort(key=lambda path: (path.name != named, -path.stat().st_mtime))
        for path in found:
            if revision is None or path.name == named:
                yield path.name, path

    def _pointer(self, repository: str, revision: str, name: str) -> Path:
        return self.folder(repository) / "snapshots" / revision / name


def cannot_write(folder: Path, error: OSError) -> ServiceUnavailable:
    """The error for a cache folder that cannot be used."""
    return ServiceUnavailable(
        f"The cache folder {folder} cannot be written: {error.strerror or error}. Let the node's "
        "user write it, or name another one as cache_dir in [sources.<scheme>]."
    )


def no_room(folder: Path, model: str, missing: int, free: int) -> ServiceUnavailable:
    """The error for a disk that is too small."""
    return ServiceUnavailable(
        f"{model} needs {_gb(missing)} more in {folder}, whose disk has {_gb(free)} free. Free "
        f"{_gb(missing + SPARE_BYTES - free)} there, or name a larger disk as cache_dir in "
        "[sources.<scheme>].",
        bytes_missing=missing,
        bytes_free=free,
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(0, count) / 1e6:.0f} MB"


def _has_shards(folder: Path, choice: Choice) -> bool:
    """Whether all weights that the index of a safetensors folder names are there."""
    if choice.first is not None:
        return True
    index = next((n for n in choice.files if n.endswith(".safetensors.index.json")), None)
    if index is None:
        return True
    try:
        named = set(json.loads((folder / index).read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return named <= set(choice.files)


def _names(folder: Path) -> list[str]:
    """Files of a snapshot."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def _size(path: Path) -> int:
    """Bytes of a file; −1 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
