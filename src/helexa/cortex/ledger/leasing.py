"""The statements that give tokens to gateways and take them back, for many scopes at once.

A round trip to a database costs more than what it is asked: fifty keys whose first requests come
together are asked for in the statements of one. The debit is one conditional statement, so no
check is ever apart from what it allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from helexa.core.principal import Cap
from helexa.cortex.ledger.database import Database, insert
from helexa.cortex.ledger.scope import Leased, ScopeState
from helexa.cortex.ledger.window import BUCKETS, bucket_of

T = TypeVar("T")

_MOST: Final = 32  # scopes of one statement


class Ask(NamedTuple):
    """What a gateway asks about one scope.

    Args:
        need: Tokens that are waited for; None only looks.
        block: What is taken beyond that if the cap is far: at most a quarter of the room.
        windows: Its rolling windows, in seconds.
        met: The store knows the scope and these windows.
        tell: How it stands is to be told.
    """

    scope: str
    caps: tuple[Cap, ...]
    need: int | None
    block: int
    windows: tuple[int, ...]
    met: bool
    tell: bool


def lease(db: Database, life: int, asks: Sequence[Ask], at: int) -> list[Leased]:
    """Add to a life's blocks, as far as all caps allow; an answer for each, in their order.

    Args:
        asks: Of different scopes.
        at: Epoch milliseconds.
    """
    register(db, ((ask.scope, ask.windows) for ask in asks if not ask.met), at)
    gained: dict[str, int] = {}
    blocks: dict[str, int] = {}
    states: dict[str, ScopeState] = {}
    wanting = [ask for ask in asks if ask.caps and ask.need is not None]
    for part in _parts(wanting):
        before = _blocks(db, life, [ask.scope for ask in part])
        blocks |= before | _debit(db, life, part, at)
        gained |= {scope: blocks[scope] - tokens for scope, tokens in before.items()}
    for part in _parts([ask for ask in asks if ask.tell]):
        states |= _states(db, life, part, at)
        blocks |= _blocks(db, life, [ask.scope for ask in part])
    return [
        Leased(gained.get(ask.scope), states.get(ask.scope), blocks.get(ask.scope)) for ask in asks
    ]


# ── what is known of a scope ────────────────────────────────────────────────────────────────────


def register(db: Database, scopes: Iterable[tuple[str, Sequence[int]]], at: int) -> None:
    """Make scopes and their windows (seconds) known; a new window is filled with what was spent
    in it."""
    known = list(scopes)
    skip = "ON CONFLICT DO NOTHING"
    insert(db, "INSERT INTO scopes (scope)", [(scope,) for scope, _ in known], skip)
    windows = [(scope, seconds) for scope, each in known for seconds in each]
    head, tail = "INSERT INTO windows (scope, seconds)", f"{skip} RETURNING scope, seconds"
    for scope, seconds in insert(db, head, windows, tail):
        kind, _, name = scope.partition(":")
        since = at - seconds * 1000 * (BUCKETS + 1) // BUCKETS
        text = _FILL.format(column="key_id" if kind == "key" else "account_id")
        db.execute(text, (scope, seconds, seconds, name, since))


_FILL: Final = (
    "INSERT INTO buckets (scope, seconds, bucket, tokens) "  # noqa: S608  # a column of ours
    f"SELECT ?, CAST(? AS BIGINT), (at * {BUCKETS}) / (CAST(? AS BIGINT) * 1000), "
    "CAST(SUM(prompt + completion) AS BIGINT) FROM requests "
    "WHERE {column} = ? AND at >= ? AND state <> 'open' GROUP BY 3"
)


def _states(db: Database, life: int, asks: Sequence[Ask], at: int) -> dict[str, ScopeState]:
    """How scopes stand, for the gateway's own picture of them."""
    names = [ask.scope for ask in asks]
    marks = ",".join("?" * len(names))
    spent = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT scope, spent, requests, prompt, completion FROM scopes "  # noqa: S608  # only ``?``
            f"WHERE scope IN ({marks})",
            names,
        )
    }
    others = {
        scope: int(tokens)
        for scope, tokens in db.execute(
            f"SELECT scope, SUM(tokens) FROM blocks WHERE scope IN ({marks}) AND life <> ? "  # noqa: S608  # as above
            "GROUP BY scope",
            [*names, life],
        )
    }
    buckets = _buckets(db, asks, at)
    return {
        name: ScopeState(
            total, others.get(name, 0), requests, prompt, completion, buckets.get(name, {})
        )
        for name in names
        for total, requests, prompt, completion in (spent.get(name, (0, 0, 0, 0)),)
    }


def _buckets(
    db: Database, asks: Sequence[Ask], at: int
) -> dict[str, dict[int, tuple[tuple[int, int], ...]]]:
    """By scope and window what is spent in it: bucket and tokens, oldest first."""
    rows = [(a.scope, seconds, _oldest(at, seconds)) for a in asks for seconds in a.windows]
    found: dict[str, dict[int, tuple[tuple[int, int], ...]]] = {}
    for scope, seconds, _ in rows:
        found.setdefault(scope, {})[seconds] = ()
    for part in _parts(rows):
        marks = ",".join(["(?, CAST(? AS BIGINT), CAST(? AS BIGINT))"] * len(part))
        for scope, seconds, bucket, tokens in db.execute(
            "SELECT b.scope, b.seconds, b.bucket, b.tokens FROM buckets AS b "  # noqa: S608
            f"JOIN (VALUES {marks}) AS v ON b.scope = v.column1 AND b.seconds = v.column2 "
            "AND b.bucket >= v.column3 ORDER BY b.bucket",
            [value for row in part for value in row],
        ):
            found[scope][seconds] += ((int(bucket), int(tokens)),)
    return found


# ── the debit ───────────────────────────────────────────────────────────────────────────────────


def _debit(db: Database, life: int, asks: Sequence[Ask], at: int) -> dict[str, int]:
    """The life's blocks that have grown, by scope; none where another keeps the life by now: what
    it was given then would be held for ever."""
    caps = [
        (ask.scope, cap.tokens, seconds, _oldest(at, seconds) if seconds else 0)
        for ask in asks
        for cap in ask.caps
        for seconds in (cap.window.seconds or 0 if cap.window.kind == "rolling" else 0,)
    ]
    wishes = [(ask.scope, ask.need, ask.block) for ask in asks]
    text = _DEBIT.format(
        wishes=",".join(["(?, CAST(? AS BIGINT), CAST(? AS BIGINT))"] * len(wishes)),
        caps=",".join([f"(?{', CAST(? AS BIGINT)' * 3})"] * len(caps)),
    )
    values = [life, *(v for row in wishes for v in row), *(v for row in caps for v in row), life]
    return {scope: int(tokens) for scope, tokens in db.execute(text, values)}


def _blocks(db: Database, life: int, scopes: Sequence[str]) -> dict[str, int]:
    """A life's blocks by scope; 0 where it has none."""
    marks = ",".join("?" * len(scopes))
    text = f"SELECT scope, tokens FROM blocks WHERE life = ? AND scope IN ({marks})"  # noqa: S608  # only ``?``
    return dict.fromkeys(scopes, 0) | {
        scope: int(tokens) for scope, tokens in db.execute(text, [life, *scopes])
    }


_ROOMS: Final = """
SELECT c.column1 AS scope, CAST(MIN(c.column2 - CASE WHEN c.column3 = 0
    THEN COALESCE((SELECT s.spent FROM scopes AS s WHERE s.scope = c.column1), 0)
    ELSE COALESCE((SELECT SUM(u.tokens) FROM buckets AS u WHERE u.scope = c.column1
      AND u.seconds = c.column3 AND u.bucket >= c.column4), 0) END)
  - COALESCE((SELECT SUM(b.tokens) FROM blocks AS b WHERE b.scope = c.column1), 0) AS BIGINT)
  AS room FROM (VALUES {caps}) AS c GROUP BY c.column1
"""
"""What the tightest cap of each scope leaves beside all blocks."""

_DEBIT: Final = (
    "INSERT INTO blocks (scope, life, tokens) "  # noqa: S608  # no value is in the text
    "SELECT scope, CAST(? AS BIGINT), CASE WHEN room < want THEN room ELSE want END FROM ("
    "SELECT scope, room, CASE WHEN part > need THEN part ELSE need END AS want FROM ("
    "SELECT r.scope, r.room, a.column2 AS need, "
    "CASE WHEN r.room / 4 < a.column3 THEN r.room / 4 ELSE a.column3 END AS part "
    f"FROM (VALUES {{wishes}}) AS a JOIN ({_ROOMS}) AS r ON r.scope = a.column1) AS p) AS w "
    "WHERE room > 0 AND want > 0 AND EXISTS ("
    "SELECT 1 FROM lives WHERE life = ? AND keeper = life AND state = 'live') "
    "ON CONFLICT (scope, life) DO UPDATE SET tokens = blocks.tokens + excluded.tokens "
    "RETURNING scope, tokens"
)


def _oldest(at: int, seconds: int) -> int:
    return bucket_of(at, seconds) - BUCKETS


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """A few at a time, in powers of two: each size is a statement of its own."""
    at = 0
    while at < len(rows):
        size = min(_MOST, 1 << ((len(rows) - at).bit_length() - 1))
        yield rows[at : at + size]
        at += size
