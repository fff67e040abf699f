"""The statements that move tokens. Each debit is one conditional statement.

Whatever is done here runs inside a transaction, and transactions of one ledger follow one another
(SQLite has one writer; on PostgreSQL they hold a lock), so what a statement sees is the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from helexa.core.principal import Cap
from helexa.cortex.ledger.database import Database, insert
from helexa.cortex.ledger.scope import ScopeState
from helexa.cortex.ledger.window import BUCKETS, bucket_of


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


class Batch(NamedTuple):
    """What a life writes down at once.

    Args:
        number: Grows by one; written once, however often it is tried.
        at: Epoch milliseconds.
        lines: What ended.
        running: What has not, and how far it is.
        blocks: Tokens by the scope whose block pays them.
    """

    number: int
    at: int
    lines: Sequence[Line]
    running: Sequence[Line]
    blocks: Sequence[tuple[str, int]]


_COLUMNS: Final = ", ".join(Line._fields)
_CHANGES: Final = ", ".join(
    f"{name} = excluded.{name}" for name in Line._fields if name not in ("request_id", "attempt")
)
INSERT: Final = f"INSERT INTO requests ({_COLUMNS})"  # our own column names
ONCE: Final = (
    f"ON CONFLICT (request_id, attempt) DO UPDATE SET {_CHANGES} WHERE requests.state = 'open'"
)


# ── scopes and blocks ───────────────────────────────────────────────────────────────────────


def register(db: Database, scope: str, windows: Iterable[int], at: int) -> None:
    """Make a scope and its windows known; a new window is filled with what was spent in it."""
    db.execute("INSERT INTO scopes (scope) VALUES (?) ON CONFLICT DO NOTHING", (scope,))
    kind, _, name = scope.partition(":")
    for seconds in windows:
        if db.execute(
            "INSERT INTO windows (scope, seconds) VALUES (?, ?) ON CONFLICT DO NOTHING "
            "RETURNING seconds",
            (scope, seconds),
        ):
            since = at - seconds * 1000 * (BUCKETS + 1) // BUCKETS
            text = _FILL.format(column="key_id" if kind == "key" else "account_id")
            db.execute(text, (scope, seconds, seconds, name, since))


_FILL: Final = (
    "INSERT INTO buckets (scope, seconds, bucket, tokens) "  # noqa: S608  # a column of ours
    f"SELECT ?, CAST(? AS BIGINT), (at * {BUCKETS}) / (CAST(? AS BIGINT) * 1000), "
    "CAST(SUM(prompt + completion) AS BIGINT) FROM requests "
    "WHERE {column} = ? AND at >= ? AND state <> 'open' GROUP BY 3"
)


def lease(
    db: Database, life: int, scope: str, caps: Sequence[Cap], need: int, block: int, at: int
) -> int:
    """Add to a life's block of a scope, as far as all its caps allow; returns how much.

    Args:
        need: Tokens that are waited for.
        block: What is taken beyond that if the cap is far: at most a quarter of the room.
        at: Epoch milliseconds.
    """
    room, values = _room(scope, caps, at)
    before = _block(db, life, scope)
    found = db.execute(
        "INSERT INTO blocks (scope, life, tokens) "  # noqa: S608  # no value is in the text
        "SELECT ?, CAST(? AS BIGINT), CASE WHEN room < want THEN room ELSE want END FROM ("
        "SELECT room, CASE WHEN part > CAST(? AS BIGINT) THEN part ELSE CAST(? AS BIGINT) END "
        "AS want FROM ("
        "SELECT room, CASE WHEN room / 4 < CAST(? AS BIGINT) THEN room / 4 "
        f"ELSE CAST(? AS BIGINT) END AS part FROM ({room}) AS a) AS b) AS c "
        "WHERE room > 0 AND want > 0 "
        "ON CONFLICT (scope, life) DO UPDATE SET tokens = blocks.tokens + excluded.tokens "
        "RETURNING tokens",
        (scope, life, need, need, block, block, *values),
    )
    return int(found[0][0]) - before if found else 0


def _room(scope: str, caps: Sequence[Cap], at: int) -> tuple[str, list[object]]:
    """A query for what the tightest cap leaves beside all blocks, and its parameters."""
    parts: list[str] = []
    values: list[object] = [scope]
    for cap in caps:
        seconds = cap.window.seconds if cap.window.kind == "rolling" else None
        if seconds is None:
            parts.append(
                "SELECT CAST(? AS BIGINT) - "
                "(SELECT COALESCE(MAX(spent), 0) FROM scopes WHERE scope = ?) AS room"
            )
            values += [cap.tokens, scope]
        else:
            parts.append(
                "SELECT CAST(? AS BIGINT) - (SELECT COALESCE(SUM(tokens), 0) FROM buckets "
                "WHERE scope = ? AND seconds = ? AND bucket >= ?) AS room"
            )
            values += [cap.tokens, scope, seconds, bucket_of(at, seconds) - BUCKETS]
    text = (
        "SELECT CAST(MIN(room) - (SELECT COALESCE(SUM(tokens), 0) FROM blocks WHERE scope = ?) "  # noqa: S608  # no value is in the text
        f"AS BIGINT) AS room FROM ({' UNION ALL '.join(parts)}) AS rooms"
    )
    return text, values


def give_back(db: Database, life: int, scope: str, tokens: int) -> None:
    """Return free tokens of a block."""
    db.execute(
        "UPDATE blocks SET tokens = tokens - ? WHERE scope = ? AND life = ?", (tokens, scope, life)
    )


def state_of(db: Database, life: int, scope: str, windows: Iterable[int], at: int) -> ScopeState:
    """How a scope stands, for the gateway's own picture of it."""
    found = db.execute(
        "SELECT spent, requests, prompt, completion FROM scopes WHERE scope = ?", (scope,)
    )
    spent, requests, prompt, completion = found[0] if found else (0, 0, 0, 0)
    others = db.execute(
        "SELECT CAST(COALESCE(SUM(tokens), 0) AS BIGINT) FROM blocks WHERE scope = ? AND life <> ?",
        (scope, life),
    )
    buckets = {
        seconds: tuple(
            (int(bucket), int(tokens))
            for bucket, tokens in db.execute(
                "SELECT bucket, tokens FROM buckets WHERE scope = ? AND seconds = ? "
                "AND bucket >= ? ORDER BY bucket",
                (scope, seconds, bucket_of(at, seconds) - BUCKETS),
            )
        )
        for seconds in windows
    }
    return ScopeState(spent, int(others[0][0]), requests, prompt, completion, buckets)


def _block(db: Database, life: int, scope: str) -> int:
    found = db.execute("SELECT tokens FROM blocks WHERE scope = ? AND life = ?", (scope, life))
    return int(found[0][0]) if found else 0


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
    insert(db, INSERT, batch.lines, ONCE)
    spend(db, batch.lines, batch.at)
    pay(db, life, batch.blocks)


def spend(db: Database, lines: Iterable[Line], at: int) -> None:
    """Add what ``lines`` cost to their keys and accounts."""
    sums: dict[str, list[int]] = {}
    for line in lines:
        for scope in line.scopes:
            found = sums.get(scope)
            if found is None:
                found = sums[scope] = [0, 0, 0, 0]
            found[0] += line.total
            found[1] += 1
            found[2] += line.prompt
            found[3] += line.completion
    if not sums:
        return
    rows = [(scope, *sums[scope]) for scope in sorted(sums)]
    spent = [(scope, sums[scope][0]) for scope in sorted(sums)]
    insert(
        db,
        "INSERT INTO scopes (scope, spent, requests, prompt, completion)",
        rows,
        "ON CONFLICT (scope) DO UPDATE SET spent = scopes.spent + excluded.spent, "
        "requests = scopes.requests + excluded.requests, "
        "prompt = scopes.prompt + excluded.prompt, "
        "completion = scopes.completion + excluded.completion",
    )
    _fill_buckets(db, spent, at)


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
