"""A shelf in a database: SQLite beside the ledger, or the PostgreSQL that several gateways share.

::

    kept_responses 1 ──── n kept_items        a response, and its conversation's new items
         └ previous: the response it continues
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from helexa.core.settings import SettingsError
from helexa.cortex.ledger.database import Database, LedgerUnavailable, Row, insert
from helexa.cortex.ledger.schema import Kind, Step, migrate
from helexa.cortex.responses.base import LONGEST_CHAIN, Kept

_FIRST: Final = (
    """
    CREATE TABLE IF NOT EXISTS kept_responses (
      id TEXT PRIMARY KEY,
      owner TEXT NOT NULL,
      previous TEXT,
      at DOUBLE PRECISION NOT NULL,
      size BIGINT NOT NULL,
      body TEXT NOT NULL)
    """,
    """
    CREATE TABLE IF NOT EXISTS kept_items (
      response TEXT NOT NULL REFERENCES kept_responses (id) ON DELETE CASCADE,
      position BIGINT NOT NULL,
      owner TEXT NOT NULL,
      id TEXT NOT NULL,
      output BIGINT NOT NULL,
      body TEXT NOT NULL,
      PRIMARY KEY (response, position))
    """,
    "CREATE INDEX IF NOT EXISTS kept_responses_at ON kept_responses (at)",
    "CREATE INDEX IF NOT EXISTS kept_items_id ON kept_items (owner, id)",
)
"""Made where they are missing: at first, tables did not say which version they are of."""

STEPS: Final = (Step("kept responses and items", _FIRST),)
"""Added to at the end, never changed."""
RESPONSES: Final = Kind("the store of responses", "kept_steps")
_CHAIN: Final = """
WITH RECURSIVE chain (id, previous, depth) AS (
  SELECT id, previous, 0 FROM kept_responses WHERE id = ? AND owner = ? AND at >= ?
  UNION ALL
  SELECT r.id, r.previous, c.depth + 1 FROM kept_responses r JOIN chain c ON r.id = c.previous
  WHERE r.owner = ? AND r.at >= ? AND c.depth < ?)
"""
_CHAIN_ENDS: Final = _CHAIN + "SELECT previous FROM chain ORDER BY depth DESC"  # noqa: S608
_CHAIN_ITEMS: Final = (
    _CHAIN  # noqa: S608 - constants, all of them
    + "SELECT i.body FROM chain c JOIN kept_items i ON i.response = c.id"
    + " ORDER BY c.depth DESC, i.position"
)
_BATCH = 256
_FULL = 0.9  # what is left when the oldest had to go, so that it is not every time


class SqlShelf:
    """Bounded in bytes and in time, over all gateways of the database.

    Args:
        now: Epoch seconds.
        ttl_s: Seconds that a response is kept.
        max_bytes: Of all bodies together.

    Raises:
        OSError: The tables cannot be made, or are of a newer helexa.
    """

    def __init__(
        self, db: Database, now: Callable[[], float], *, ttl_s: float, max_bytes: int
    ) -> None:
        self._db = db
        self._now = now
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._since = 0  # bytes put since the last sweep
        try:
            migrate(db, STEPS, kind=RESPONSES)
        except SettingsError as error:  # no gateway ends for want of it
            db.close()
            raise LedgerUnavailable(str(error)) from error

    def put(self, owner: str, kept: Kept) -> None:
        """See ``Shelf``; so are all below."""
        items = [
            (
                kept.response_id,
                place,
                owner,
                _id(item.item_id),
                int(item.output),
                item.body.decode(),
            )
            for place, item in enumerate(kept.items)
        ]
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO kept_responses (id, owner, previous, at, size, body)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (kept.response_id, owner, kept.previous, kept.at, kept.size, kept.body.decode()),
            )
            head = "INSERT INTO kept_items (response, position, owner, id, output, body)"
            insert(self._db, head, items)
        self._since += kept.size
        if self._since > self._max_bytes // 16:
            self.sweep()

    def find(self, owner: str, response_id: str) -> bytes | None:
        rows = self._db.execute(
            "SELECT body FROM kept_responses WHERE id = ? AND owner = ? AND at >= ?",
            (_id(response_id), owner, self._oldest()),
        )
        return rows[0][0].encode() if rows else None

    def inputs(self, owner: str, response_id: str) -> list[bytes] | None:
        if self.find(owner, response_id) is None:
            return None
        sql = "SELECT body FROM kept_items WHERE response = ? AND output = 0 ORDER BY position"
        return _bodies(self._db.execute(sql, (_id(response_id),)))

    def history(self, owner: str, response_id: str) -> list[bytes] | None:
        oldest = self._oldest()
        given = (_id(response_id), owner, oldest, owner, oldest, LONGEST_CHAIN - 1)
        ends = self._db.execute(_CHAIN_ENDS, given)
        if not ends or ends[0][0] is not None:
            return None  # not there, or it goes on behind what is
        return _bodies(self._db.execute(_CHAIN_ITEMS, given))

    def named(self, owner: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for item_id in item_ids:
            rows = self._db.execute(
                "SELECT i.body FROM kept_items i JOIN kept_responses r ON r.id = i.response"
                " WHERE i.owner = ? AND i.id = ? AND r.at >= ? ORDER BY r.at DESC LIMIT 1",
                (owner, _id(item_id), self._oldest()),
            )
            if rows:
                found[item_id] = rows[0][0].encode()
        return found

    def delete(self, owner: str, response_id: str) -> bool:
        sql = "DELETE FROM kept_responses WHERE id = ? AND owner = ? AND at >= ? RETURNING id"
        return bool(self._db.execute(sql, (_id(response_id), owner, self._oldest())))

    def sweep(self) -> None:
        self._since = 0
        with self._db.transaction():
            self._db.execute("DELETE FROM kept_responses WHERE at < ?", (self._oldest(),))
            total = int(self._db.execute("SELECT COALESCE(SUM(size), 0) FROM kept_responses")[0][0])
            if total <= self._max_bytes:
                return
            self._drop_oldest(total - int(self._max_bytes * _FULL))

    def give_up(self) -> None:
        self._db.give_up()

    def close(self) -> None:
        self._db.close()

    def _drop_oldest(self, spare: int) -> None:
        """Forget the oldest of whoever keeps most until ``spare`` bytes are gone: what one key
        keeps pushes out nobody else's."""
        of_all = "SELECT owner, SUM(size) FROM kept_responses GROUP BY owner"
        of_one = "SELECT id, size FROM kept_responses WHERE owner = ? ORDER BY at, id LIMIT ?"
        kept = {str(owner): int(size) for owner, size in self._db.execute(of_all)}
        while spare > 0 and kept:
            owner = max(kept, key=kept.__getitem__)
            next_most = max((kept[other] for other in kept if other != owner), default=0)
            rows = self._db.execute(of_one, (owner, _BATCH))
            for response_id, size in rows:
                self._db.execute("DELETE FROM kept_responses WHERE id = ?", (response_id,))
                spare -= int(size)
                kept[owner] -= int(size)
                if spare <= 0 or kept[owner] < next_most:
                    break
            if not rows:
                del kept[owner]

    def _oldest(self) -> float:
        return self._now() - self._ttl_s


def _id(given: str) -> str:
    """An id as a client may have chosen it; PostgreSQL's texts hold no NUL."""
    return given.replace("\0", "\ufffd")


def _bodies(rows: list[Row]) -> list[bytes]:
    return [row[0].encode() for row in rows]
