"""The statements that write down what was spent. For those that give tokens see ``leasing``.

Whatever is done here runs inside a transaction, and transactions of one ledger follow one another
(SQLite has one writer; on PostgreSQL they hold a lock), so what a statement sees is the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from helexa.cortex.ledger.database import Database, insert, insert_flat
from helexa.cortex.ledger.window import AHEAD_S, BUCKETS, bucket_of


class Fenced(Exception):
    """Another life keeps ours by now: nothing of it is ours to write any more."""


class Line(NamedTuple):
    """One row of ``requests``; tokens."""

    request_id: str
    attempt: int
    life: int
    state: str
    at: int
    account_id: str
    key_id: str
    node: str
    model: str
    granted: int | None
    used: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    overrun: int = 0
    estimated: int = 0

    @property
    def total(self) -> int:
        """What is billed."""
        return self.prompt + self.completion

    @property
    def scopes(self) -> tuple[str, str]:
        """Whose spend it is."""
        return f"key:{self.key_id}", f"account:{self.account_id}"


@dataclass(slots=True)
class Sum:
    """What requests have cost."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0

    def add(self, prompt: int, completion: int) -> None:
        """One more request."""
        self.requests += 1
        self.prompt += prompt
        self.completion += completion


class Batch(NamedTuple):
    """What a life writes down at once.

    Args:
        number: Grows by one; written once, however often it is tried.
        at: Epoch milliseconds.
        lines: What ended: the values of a ``Line`` each, one after the other.
        running: What has not, and how far it is.
        blocks: Tokens by the scope whose block pays them.
        sums: By the name of a scope, what ``lines`` cost it.
    """

    number: int
    at: int
    lines: list[object]
    running: Sequence[Line]
    blocks: Sequence[tuple[str, int]]
    sums: Mapping[str, Sum]


WIDTH: Final = len(Line._fields)
_COLUMNS: Final = ", ".join(Line._fields)
_CHANGES: Final = ", ".join(
    f"{name} = excluded.{name}" for name in Line._fields if name not in ("request_id", "attempt")
)
INSERT: Final = f"INSERT INTO requests ({_COLUMNS})"  # our own column names
ONCE: Final = (
    f"ON CONFLICT (request_id, attempt) DO UPDATE SET {_CHANGES} WHERE requests.state = 'open'"
)
JSON_ROWS: Final = 4096  # of one statement: about a megabyte
_FROM_JSON: Final = (
    f"{INSERT} SELECT {_COLUMNS} "  # noqa: S608  # our own column names
    f"FROM json_populate_recordset(CAST(NULL AS requests), CAST(? AS json)) {ONCE}"
)


# ── what was spent ──────────────────────────────────────────────────────────────────────────


def write_batch(db: Database, life: int, batch: Batch) -> None:
    """Write what a living gateway has settled; a second time it changes nothing.

    Raises:
        Fenced: Another life keeps this one by now.
    """
    if not db.execute(
        "UPDATE lives SET batch = ? WHERE life = ? AND keeper = ? AND state = 'live' "
        "AND batch < ? RETURNING life",
        (batch.number, life, life, batch.number),
    ):
        found = db.execute("SELECT batch FROM lives WHERE life = ? AND keeper = ?", (life, life))
        if found and found[0][0] >= batch.number:
            return  # it was written, and only the answer was lost
        raise Fenced
    insert(db, INSERT, batch.running, ONCE)
    _write_lines(db, batch.lines)
    spend(db, batch.sums, batch.at)
    pay(db, life, batch.blocks)


def _write_lines(db: Database, lines: list[object]) -> None:
    """What ended: the most rows that there are.

    PostgreSQL's driver makes parameters in Python, at two microseconds each, so there all rows of
    a statement are one. To SQLite a parameter is a tenth of that, and JSON more.
    """
    if db.dialect == "sqlite":
        insert_flat(db, INSERT, lines, WIDTH, ONCE)
        return
    for first in range(0, len(lines), JSON_ROWS * WIDTH):
        last = min(first + JSON_ROWS * WIDTH, len(lines))
        rows = [
            dict(zip(Line._fields, lines[at : at + WIDTH], strict=True))
            for at in range(first, last, WIDTH)
        ]
        db.execute(_FROM_JSON, (msgspec.json.encode(rows).decode(),))


def batch_number(db: Database, life: int) -> int:
    """Of the last batch that was written."""
    found = db.execute("SELECT batch FROM lives WHERE life = ?", (life,))
    return int(found[0][0]) if found else 0


def sums_of(lines: Iterable[Line]) -> dict[str, Sum]:
    """What lines cost their keys and accounts; one that cost nothing is no request."""
    sums: dict[str, Sum] = {}
    for line in lines:
        if line.total:
            for scope in line.scopes:
                sums.setdefault(scope, Sum()).add(line.prompt, line.completion)
    return sums


def spend(db: Database, sums: Mapping[str, Sum], at: int) -> None:
    """Add to what scopes have spent."""
    found = sorted(sums.items())
    insert(
        db,
        "INSERT INTO scopes (scope, spent, requests, prompt, completion)",
        [(name, s.prompt + s.completion, s.requests, s.prompt, s.completion) for name, s in found],
        "ON CONFLICT (scope) DO UPDATE SET spent = scopes.spent + excluded.spent, "
        "requests = scopes.requests + excluded.requests, "
        "prompt = scopes.prompt + excluded.prompt, "
        "completion = scopes.completion + excluded.completion",
    )
    _fill_buckets(db, [(name, s.prompt + s.completion) for name, s in found], at)


def _fill_buckets(db: Database, rows: Sequence[tuple[str, int]], at: int) -> None:
    if not db.execute("SELECT 1 FROM windows LIMIT 1"):
        return
    for chunk, values in _chunks(rows):
        db.execute(
            "INSERT INTO buckets (scope, seconds, bucket, tokens) "  # noqa: S608  # only ``?``
            f"SELECT w.scope, w.seconds, (CAST(? AS BIGINT) * {BUCKETS}) / (w.seconds * 1000), "
            f"v.column2 FROM windows AS w JOIN (VALUES {values}) AS v ON w.scope = v.column1 "
            "WHERE v.column2 > 0 ON CONFLICT (scope, seconds, bucket) "
            "DO UPDATE SET tokens = buckets.tokens + excluded.tokens",
            [at, *chunk],
        )


def pay(db: Database, life: int, blocks: Sequence[tuple[str, int]]) -> None:
    """Take from a life's blocks what its requests cost."""
    for chunk, values in _chunks(blocks):
        db.execute(
            "UPDATE blocks SET tokens = tokens - v.column2 "  # noqa: S608  # only ``?``
            f"FROM (VALUES {values}) AS v WHERE blocks.scope = v.column1 AND blocks.life = ?",
            [*chunk, life],
        )


def _chunks(rows: Sequence[tuple[str, int]]) -> Iterable[tuple[list[object], str]]:
    """Parameters and placeholders for lists of pairs, few at a time, in powers of two."""
    at = 0
    while at < len(rows):
        size = min(64, 1 << ((len(rows) - at).bit_length() - 1))
        chunk: list[object] = [value for row in rows[at : at + size] for value in row]
        yield chunk, ",".join(["(?, CAST(? AS BIGINT))"] * size)
        at += size


def forget_old_buckets(db: Database, at: int) -> None:
    """Drop buckets that have left every window."""
    db.execute(
        f"DELETE FROM buckets WHERE bucket < (CAST(? AS BIGINT) * {BUCKETS}) / (seconds * 1000) "  # noqa: S608
        f"- {BUCKETS + 2}",
        (at,),
    )


def forget_the_future(db: Database, at: int) -> None:
    """Let what was booked by a clock that was ahead count from now on: it is spent by now."""
    late = at + AHEAD_S * 1000
    db.execute("UPDATE requests SET at = ? WHERE at > ?", (at, late))
    ahead = f"bucket > (CAST(? AS BIGINT) * {BUCKETS}) / (seconds * 1000)"
    found = db.execute(
        "SELECT scope, seconds, CAST(SUM(tokens) AS BIGINT) FROM buckets "  # noqa: S608  # only ``?``
        f"WHERE {ahead} GROUP BY scope, seconds",
        (late,),
    )
    if found:
        db.execute(f"DELETE FROM buckets WHERE {ahead}", (late,))  # noqa: S608  # as above
        insert(
            db,
            "INSERT INTO buckets (scope, seconds, bucket, tokens)",
            [(scope, secs, bucket_of(at, secs), tokens) for scope, secs, tokens in found],
            "ON CONFLICT (scope, seconds, bucket) "
            "DO UPDATE SET tokens = buckets.tokens + excluded.tokens",
        )
