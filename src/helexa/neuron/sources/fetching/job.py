"""What passes between a node and the process that downloads for it."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["unreachable", "refused", "missing", "changed", "corrupt", "full", "unwritable"]
"""Why a download ended without its files."""


class FileJob(msgspec.Struct, frozen=True):
    """One file to bring.

    Args:
        name: For progress and messages.
        url: Where it is; redirects are followed, the headers go to this host only.
        size: Bytes it must have.
        digest: ``sha256:…`` or ``git-sha1:…`` it must have; empty is only checked by size.
        blob: Where its content goes; ``<blob>.incomplete`` until it is whole.
        pointer: The name under which it is to be found, a link to the blob.
        lock: Held (``flock``) by whoever brings the blob.
    """

    name: str
    url: str
    size: int
    digest: str
    blob: str
    pointer: str
    lock: str


class Job(msgspec.Struct, frozen=True):
    """Files to bring: all of ``first``, then all of ``then``.

    Args:
        headers: For the files' own host; may hold a token.
        at_once: Files that are brought side by side.
        idle_s: A connection that is silent for so long is given up (seconds).
        attempts: Connections in a row that may bring nothing.
        pause_s: Before the second of them; doubled every time.
        every_s: Between two reports.
    """

    first: tuple[FileJob, ...]
    then: tuple[FileJob, ...]
    headers: dict[str, str] = {}
    at_once: int = 4
    idle_s: float = 30.0
    attempts: int = 6
    pause_s: float = 1.0
    every_s: float = 0.25

    def __repr__(self) -> str:
        return f"Job({[file.name for file in (*self.first, *self.then)]}, headers=***)"


class Told(msgspec.Struct, frozen=True, tag="told"):
    """Bytes of the job's files that are here, and the file that moves."""

    done: int
    file: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """All files are here, checked and under their names."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It ended.

    Args:
        message: What happened, with values.
        status: The HTTP status behind it, if there was one.
        retry_after_s: What the server asked for.
    """

    kind: Kind
    message: str
    file: str = ""
    status: int | None = None
    retry_after_s: float | None = None


Event = Told | Finished | Failed


class DownloadError(Exception):
    """Why one file cannot be had."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed
