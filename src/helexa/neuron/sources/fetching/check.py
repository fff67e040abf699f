"""The digest of a file that is still being written, by a thread that follows the writer.

::

    file   [ from an earlier attempt | written by now |  to come  ]
             ▲ hash follows ─────────▶                ▲ writer

Following the file instead of the stream needs no buffers between the two, takes what an earlier
attempt left without asking for it again, and lets hash and network use a core each.
"""

from __future__ import annotations

import hashlib
import os
import threading

PIECE = 1 << 20


class Follower:
    """Hashes ``fd`` from its start as far as it is told to.

    Args:
        digest: ``sha256:…`` or ``git-sha1:…`` (git's id of a blob: a header, then the content).
        size: Bytes of the whole file.
    """

    def __init__(self, fd: int, digest: str, size: int) -> None:
        self._fd = fd
        kind, _, self._expected = digest.partition(":")
        if kind == "git-sha1":
            self._hash = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        else:
            self._hash = hashlib.sha256()
        self._written = 0
        self._over = False
        self._error: OSError | None = None
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)
        self._thread.start()

    def written(self, upto: int) -> None:
        """The file holds ``[0, upto)``, and that will not change any more."""
        with self._moved:
            self._written = max(self._written, upto)  # a server without ranges begins anew
            self._moved.notify()

    def end(self) -> None:
        """Hash no further; idempotent."""
        with self._moved:
            self._over = True
            self._moved.notify()

    def matches(self) -> bool:
        """Wait for the rest, and say whether the content is the right one.

        Raises:
            OSError: The file cannot be read back.
        """
        self.end()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest() == self._expected

    def _follow(self) -> None:
        buffer, at = bytearray(PIECE), 0
        view = memoryview(buffer)
        try:
            while (upto := self._more(at)) > at:
                while at < upto:
                    count = os.preadv(self._fd, [view[: min(PIECE, upto - at)]], at)
                    if not count:
                        return
                    self._hash.update(view[:count])
                    at += count
        except OSError as error:
            self._error = error

    def _more(self, at: int) -> int:
        """How far the file is, once it is further than ``at`` or complete."""
        with self._moved:
            while self._written == at and not self._over:
                self._moved.wait()
            return self._written
