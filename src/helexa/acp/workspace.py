"""The files of a session: through the editor where it offers that, else on disk inside the roots.

Nothing outside the roots is touched: paths are resolved with every link in them before they are
compared, for files that do not exist yet by the nearest folder that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from helexa.acp.editor import Editor, Gone
from helexa.acp.protocol.rpc import RpcError

MOST_BYTES = 2 * 1024 * 1024
READ_S = 60.0
REPLACED = "\ufffd"


class FileTrouble(Exception):
    """A file that cannot be had; the message is for the model, and says what would work."""


class Workspace:
    """Reads and writes text files of one session.

    Args:
        roots: Absolute folders; the first is where relative paths start.
    """

    def __init__(self, roots: Sequence[Path], editor: Editor) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._editor = editor
        self._seen: dict[Path, int] = {}

    @property
    def home(self) -> Path:
        """Where relative paths start and commands run."""
        return self.roots[0]

    def path(self, given: str) -> Path:
        """The absolute path of something inside the roots.

        Raises:
            FileTrouble: It leads out of them.
        """
        raw = Path(given)
        found = (raw if raw.is_absolute() else self.home / raw).resolve()
        if not any(found == root or root in found.parents for root in self.roots):
            names = ", ".join(str(root) for root in self.roots)
            raise FileTrouble(f"{given} is outside of the workspace; its folders are: {names}")
        return found

    def shown(self, path: Path) -> str:
        """A path as people read it."""
        for root in self.roots:
            if root in path.parents:
                return str(path.relative_to(root))
        return str(path)

    def seen(self, path: Path, text: str) -> None:
        """The model knows that text of a file."""
        self._seen[path] = hash(text)

    def knows(self, path: Path, text: str) -> bool:
        """The model knows a file as it is, which is ``text``."""
        return self._seen.get(path) == hash(text)

    def knows_other(self, path: Path, text: str) -> bool:
        """It knows the file, and as something else."""
        return path in self._seen and not self.knows(path, text)

    async def read(self, path: Path) -> str:
        """A file's text, as the user sees it in the editor.

        Raises:
            FileTrouble: It is missing, no text, or too large.
        """
        if self._editor.offers.read:
            await asyncio.to_thread(self._refuse_large, path)
            try:
                async with asyncio.timeout(READ_S):
                    text = await self._editor.read(str(path))
                if REPLACED in text:
                    await asyncio.to_thread(self._refuse_replaced, path)
                return text
            except TimeoutError:
                late = f"{self.shown(path)}: the editor has not given it within {READ_S:g} s"
                raise FileTrouble(late) from None
            except Gone as error:
                if not await asyncio.to_thread(path.is_file):
                    raise FileTrouble(f"{self.shown(path)}: {error}") from error
        return await asyncio.to_thread(self._read, path)

    async def read_or_none(self, path: Path) -> str | None:
        """The text, or None where there is no file.

        Raises:
            FileTrouble: There is one, and it is no text or too large.
        """
        there = await asyncio.to_thread(path.exists)
        if not there and not self._editor.offers.read:
            return None
        try:
            return await self.read(path)
        except FileTrouble:
            if there:
                raise
            return None

    async def write(self, path: Path, text: str) -> None:
        """Write a file whole.

        Raises:
            FileTrouble: It cannot be written.
        """
        try:
            if self._editor.offers.write:
                await self._editor.write(str(path), text)
            else:
                await asyncio.to_thread(write, path, text)
        except (RpcError, OSError) as error:
            raise FileTrouble(f"{self.shown(path)} cannot be written: {error}") from error

    async def remove(self, path: Path) -> None:
        """Take a file away again (undo of one that was made)."""
        await asyncio.to_thread(path.unlink, missing_ok=True)

    def _refuse_large(self, path: Path) -> None:
        """An editor would send all of it in one line, and keep it."""
        with contextlib.suppress(OSError):  # the reader says what is wrong with it
            if path.stat().st_size > MOST_BYTES:
                raise FileTrouble(
                    f"{self.shown(path)} has more than 2 MiB; use grep on it, or run_command for "
                    "a part of it"
                )

    def _refuse_replaced(self, path: Path) -> None:
        """An editor shows what it cannot decode by a sign, which must not be written back."""
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            raise self._no_text(path) from None
        except OSError:
            return  # only the editor has it

    def _no_text(self, path: Path) -> FileTrouble:
        return FileTrouble(f"{self.shown(path)} is not a text file: its bytes are not UTF-8")

    def _read(self, path: Path) -> str:
        try:
            if path.is_dir():
                raise FileTrouble(f"{self.shown(path)} is a folder; use list_dir")
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                raise FileTrouble(f"{self.shown(path)} is not a regular file")
            self._refuse_large(path)
            return path.read_bytes().decode()  # its line endings are its own
        except FileNotFoundError:
            raise FileTrouble(f"there is no file {self.shown(path)}") from None
        except UnicodeDecodeError:
            raise self._no_text(path) from None
        except OSError as error:
            raise FileTrouble(f"{self.shown(path)} cannot be read: {error.strerror}") from error


def write(path: Path, text: str) -> None:
    """Write a file on disk whole, or not at all.

    Raises:
        OSError: There is no room, for one; what was there is there again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        _make(path, data)
        return
    with file:
        before = file.read()
        try:
            _replace(file, data)
        except OSError:
            _replace(file, before)
            raise


def _make(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _replace(file: FileIO, data: bytes) -> None:
    """In place: links, owner and permissions stay, and what was there keeps its room meanwhile."""
    file.seek(0)
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    file.truncate(len(data))
