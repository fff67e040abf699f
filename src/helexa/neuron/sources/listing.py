"""What a source knows of a model before anything is fetched, and how far a fetch is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec


class ListedFile(msgspec.Struct, frozen=True):
    """One file that the model needs.

    Args:
        name: Relative to the model's folder, with ``/``.
        size: Bytes.
        path: Where it is on this machine, whole; None while it has to be fetched.
        digest: ``sha256:…`` or ``git-sha1:…`` of the content, where the source says one.
        have: Bytes of it that are here, for a file that was fetched in part.
        tag: What the source calls this content; empty for files of this machine.
    """

    name: str
    size: int
    path: Path | None = None
    digest: str = ""
    have: int = 0
    tag: str = ""

    @property
    def missing(self) -> int:
        """Bytes that have to be fetched."""
        return 0 if self.path is not None else max(0, self.size - self.have)


class Listing(msgspec.Struct, frozen=True):
    """One model as its source describes it: which files, how many bytes, what is here.

    Args:
        name: The id it is served under.
        scheme: The source it is from, as ``[sources.<scheme>]`` names it.
        quant: The one that was chosen; None when the files have no such choice.
        files: All that the model needs and nothing else; companions first, weights last, the
            weights in the order of their shards.
        bytes_total: Of all files.
        bytes_missing: What would have to be fetched.
        path: The weights' file (first shard) or their folder when all of it is here.
        quants: What there is to choose from.
        repository: Its name within the source, with the branch that was asked for (``@v1``).
        revision: The commit the files belong to; empty where the source has none.
        note: What an operator should know about this answer (``from the cache, the hub cannot be
            reached: …``); empty when there is nothing to say.
    """

    name: str
    scheme: str
    quant: str | None
    files: tuple[ListedFile, ...]
    bytes_total: int
    bytes_missing: int
    path: Path | None
    quants: tuple[str, ...] = ()
    repository: str = ""
    revision: str = ""
    note: str = ""

    def file(self, name: str) -> ListedFile:
        """The file of that name.

        Raises:
            KeyError: The model has no such file.
        """
        for one in self.files:
            if one.name == name:
                return one
        raise KeyError(name)


def listing_of(
    name: str,
    scheme: str,
    files: tuple[ListedFile, ...],
    path: Path | None,
    *,
    quant: str | None = None,
    quants: tuple[str, ...] = (),
    repository: str = "",
    revision: str = "",
    note: str = "",
) -> Listing:
    """A listing with its sums."""
    missing = sum(file.missing for file in files)
    here = all(file.path is not None for file in files)
    return Listing(
        name, scheme, quant, files, sum(file.size for file in files), missing,
        path if here else None, quants, repository or name, revision, note,
    )  # fmt: skip


class Progress(msgspec.Struct, frozen=True):
    """How far a fetch is.

    Args:
        done: Bytes of the model that are here and checked or on their way to it.
        total: Bytes of all its files.
        file: The one that moves.
        rate: Bytes per second, lately; 0 when nothing moved yet.
    """

    done: int
    total: int
    file: str = ""
    rate: float = 0.0

    @property
    def fraction(self) -> float:
        """How much of it is here, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until all of it is here at this rate; None while no rate is known."""
        left = max(0, self.total - self.done)
        if not left:
            return 0.0
        return left / self.rate if self.rate > 0 else None


Report = Callable[[Progress], None]
"""Told how far a fetch is; on the caller's loop."""


def silent(_progress: Progress) -> None:
    """A report that nobody reads."""
