"""Repositories as the fake hub knows them: folders ``<root>/<org>/<name>``."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import msgspec

LFS = (".gguf", ".safetensors", ".bin", ".onnx", ".model")
PIECE = 1 << 20


class Content(msgspec.Struct, frozen=True):
    """One file: ``oid`` is git's id of the blob, ``sha256`` is there for files kept in LFS."""

    name: str
    path: Path
    size: int
    oid: str
    sha256: str | None

    @property
    def tag(self) -> str:
        """The entity tag of its content."""
        return self.sha256 or self.oid


class Repositories:
    """All repositories under ``root``; digests are computed once per state of a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[tuple[Path, int, int], Content] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All ``org/name``."""
        return sorted(
            f"{path.parent.name}/{path.name}" for path in self.root.glob("*/*") if path.is_dir()
        )

    def contents(self, repository: str) -> list[Content] | None:
        """Its files; None when there is no such repository."""
        folder = self.root / repository
        if not folder.is_dir():
            return None
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [self._content(path.relative_to(folder).as_posix(), path) for path in files]

    @staticmethod
    def revision(contents: list[Content]) -> str:
        """The commit: it changes with any file."""
        said = "\n".join(f"{one.name} {one.tag}" for one in contents)
        return hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()

    def by_tag(self, tag: str) -> Content | None:
        """A file that was described before, by its content."""
        with self._lock:
            return next((one for one in self._known.values() if one.tag == tag), None)

    def _content(self, name: str, path: Path) -> Content:
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _digested(name, path, state.st_size)
            return known


def _digested(name: str, path: Path, size: int) -> Content:
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha256 = hashlib.sha256() if name.endswith(LFS) else None
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            (sha256 or git).update(piece)
    return Content(name, path, size, git.hexdigest(), sha256.hexdigest() if sha256 else None)
