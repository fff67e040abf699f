"""Sessions on disk: one file each, replaced as a whole, so that a crash leaves the turn before."""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from helexa.acp.sessions.session import VERSION, Saved
from helexa.core.folders import user_folder
from helexa.wire.bodies import UNREADABLE

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Saved).decode


class Head(msgspec.Struct):
    """What a list shows of a session."""

    id: str
    cwd: str
    title: str | None = None
    updated_at: str = ""
    roots: list[str] = []


class _Form(msgspec.Struct):
    version: int = 1


_head = msgspec.json.Decoder(Head).decode
_form = msgspec.json.Decoder(_Form).decode


class NoSession(Exception):
    """There is none of that id, or it cannot be read; the message says which."""


def sessions_folder(environ: Mapping[str, str]) -> Path:
    """``$XDG_DATA_HOME/helexa-acp/sessions``."""
    return user_folder("XDG_DATA_HOME", ".local/share", environ) / "helexa-acp" / "sessions"


def new_id() -> str:
    """128 bits, letters only."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(23))


class SessionStore:
    """The folder of sessions. Methods block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, session: Saved) -> None:
        """Write it whole, beside the old one, then in its place.

        Raises:
            OSError: The disk would not take it; the old one is still there.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(session.id)
        session.version = VERSION
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        with beside.open("wb") as out:
            out.write(_encode(session))
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)

    def load(self, session_id: str) -> Saved:
        """Read one.

        Raises:
            NoSession: There is none, or its file is of no use.
        """
        try:
            data = self._path(session_id).read_bytes()
            if _form(data).version > VERSION:  # first: the rest may have another form
                raise NoSession(
                    f"the session {session_id!r} was written by a newer helexa; "
                    "use that one, or begin a new session"
                )
            return _decode(data)
        except FileNotFoundError:
            raise NoSession(f"there is no session {session_id!r}") from None
        except (OSError, *UNREADABLE) as error:
            raise NoSession(f"the session {session_id!r} cannot be read: {error}") from error

    def delete(self, session_id: str) -> None:
        """Forget one; it may be gone already."""
        self._path(session_id).unlink(missing_ok=True)

    def heads(self, cwd: str | None) -> list[Head]:
        """Newest first; of one folder if that is asked."""
        found = [head for head in self._heads() if cwd is None or head.cwd == cwd]
        return sorted(found, key=lambda head: head.updated_at, reverse=True)

    def _heads(self) -> Iterator[Head]:
        for path in self._folder.glob("*.json"):
            try:
                yield _head(path.read_bytes())
            except (OSError, *UNREADABLE):
                continue  # one bad file hides no others

    def _path(self, session_id: str) -> Path:
        if not session_id.isascii() or not session_id.isalnum():
            raise NoSession(f"{session_id!r} is not a session id")
        return self._folder / f"{session_id}.json"
