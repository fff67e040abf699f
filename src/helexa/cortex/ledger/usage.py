"""What was used, by whom, of what and where: read from the rows that settling leaves anyway.

::

    requests (a row per settled request) ──older than the retention──▶ usage_days (sums)
        └──────────────────── a report reads both ────────────────────────┘

A row leaves ``requests`` in the same transaction in which it is added to its day, so a report
never counts it twice or not at all. Days are UTC; times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from helexa.cortex.ledger.database import Database, insert
from helexa.cortex.ledger.schema import Step

DAY_MS: Final = 86_400_000

USAGE: Final = Step(
    "sums of usage per day",
    (
        """
        CREATE TABLE usage_days (
          day BIGINT NOT NULL,
          account_id TEXT NOT NULL,
          key_id TEXT NOT NULL,
          model TEXT NOT NULL,
          node TEXT NOT NULL,
          requests BIGINT NOT NULL,
          prompt BIGINT NOT NULL,
          cached BIGINT NOT NULL,
          completion BIGINT NOT NULL,
          reasoning BIGINT NOT NULL,
          PRIMARY KEY (day, account_id, key_id, model, node)) WITHOUT ROWID
        """,
    ),
)

Dimension = Literal["account", "key", "model", "node", "day"]
DIMENSIONS: Final[tuple[Dimension, ...]] = ("account", "key", "model", "node", "day")
_COLUMNS: Final = {
    "account": "account_id",
    "key": "key_id",
    "model": "model",
    "node": "node",
    "day": "day",
}
_BILLED: Final = "state <> 'open' AND prompt + completion > 0"
"""A request that cost nothing is in no report."""

_FIGURES: Final = ("requests", "prompt", "cached", "completion", "reasoning")


class UsageQuery(msgspec.Struct, frozen=True):
    """What to report.

    Args:
        group_by: One row per combination of these.
        since, until: Epoch milliseconds, from and before; what has been summed up is taken by
            the day. None is unbounded.
        account, key, model, node: Only of this one.
    """

    group_by: tuple[Dimension, ...] = ("key",)
    since: int | None = None
    until: int | None = None
    account: str | None = None
    key: str | None = None
    model: str | None = None
    node: str | None = None


class Sums(NamedTuple):
    """Requests that cost something, and their tokens.

    ``cached`` is a part of ``prompt``, and ``reasoning`` of ``completion``.
    """

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def plus(self, *more: int) -> Sums:
        """With further figures, in the order of the fields."""
        return Sums(*(a + b for a, b in zip(self, more, strict=True)))

    @property
    def total(self) -> int:
        """Tokens billed."""
        return self.prompt + self.completion


class RequestRow(msgspec.Struct, frozen=True):
    """One settled request, as long as it is kept by itself.

    Args:
        at: When it was settled (epoch milliseconds).
        state: ``settled``, or ``expired`` when it was given up at the last count heard of.
    """

    at: int
    request_id: str
    account_id: str
    key_id: str
    model: str
    node: str
    state: str
    prompt: int
    cached: int
    completion: int
    reasoning: int


def sums(db: Database, query: UsageQuery) -> Iterator[tuple[dict[str, object], Sums]]:
    """The values of the dimensions asked for, and of ``model`` anyway; and what they add up to."""
    names = list(dict.fromkeys((*query.group_by, "model")))
    columns = ", ".join(_COLUMNS[name] for name in names)
    rows_where, rows_given = _where(query, "at", 1)
    days_where, days_given = _where(query, "day", DAY_MS)
    figures = ", ".join(f"CAST(SUM({name}) AS BIGINT)" for name in _FIGURES)
    found = db.execute(
        f"SELECT {columns}, {figures} FROM ("  # noqa: S608  # names of this file
        f"SELECT account_id, key_id, model, node, at / {DAY_MS} AS day,"
        " 1 AS requests, prompt, cached, completion, reasoning FROM requests"
        f" WHERE {_BILLED}{rows_where}"
        " UNION ALL SELECT account_id, key_id, model, node, day, requests,"
        f" prompt, cached, completion, reasoning FROM usage_days WHERE 1 = 1{days_where}"
        f") AS used GROUP BY {columns}",
        (*rows_given, *days_given),
    )
    for row in found:
        yield dict(zip(names, row, strict=False)), Sums(*row[len(names) :])


def requests(db: Database, query: UsageQuery, most: int) -> list[RequestRow]:
    """The newest requests first, as far as they are kept one by one."""
    where, given = _where(query, "at", 1)
    found = db.execute(
        "SELECT at, request_id, account_id, key_id, model, node, state,"  # noqa: S608  # as above
        " prompt, cached, completion, reasoning FROM requests"
        f" WHERE {_BILLED}{where} ORDER BY at DESC, request_id LIMIT ?",
        (*given, most),
    )
    return [RequestRow(*row) for row in found]


def archive(db: Database, before: int, most: int = 2000) -> int:
    """Sum up requests that were settled before ``before``; how many, at most ``most`` at once.

    To be run inside a transaction. Several gateways may: a row is deleted by one of them.
    """
    rows = db.execute(
        "DELETE FROM requests WHERE (request_id, attempt) IN"
        " (SELECT request_id, attempt FROM requests WHERE state <> 'open' AND at < ?"
        # What may still be settled again by a node's record has to be recognised then.
        " AND life NOT IN (SELECT life FROM lives WHERE state = 'live' AND keeper <> life)"
        " ORDER BY at LIMIT ?)"
        " RETURNING at, account_id, key_id, model, node, prompt, cached, completion, reasoning",
        (before, most),
    )
    days: dict[tuple[object, ...], Sums] = {}
    scopes: dict[str, int] = {}
    for at, account, key, model, node, prompt, cached, completion, reasoning in rows:
        if prompt + completion == 0:
            continue
        day = (at // DAY_MS, account, key, model, node)
        days[day] = days.get(day, Sums()).plus(1, prompt, cached, completion, reasoning)
        for scope in (f"key:{key}", f"account:{account}"):
            scopes[scope] = scopes.get(scope, 0) + prompt + completion
    _add_days(db, days.items())
    for scope, tokens in sorted(scopes.items()):
        db.execute("UPDATE scopes SET archived = archived + ? WHERE scope = ?", (tokens, scope))
    return len(rows)


def _add_days(db: Database, days: Iterable[tuple[tuple[object, ...], Sums]]) -> None:
    more = ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in _FIGURES)
    insert(
        db,
        f"INSERT INTO usage_days (day, account_id, key_id, model, node, {', '.join(_FIGURES)})",
        # In one order, so that two gateways never wait for each other's rows.
        sorted((*day, *figures) for day, figures in days),
        f"ON CONFLICT (day, account_id, key_id, model, node) DO UPDATE SET {more}",
    )


def _where(query: UsageQuery, column: str, unit_ms: int) -> tuple[str, Sequence[object]]:
    conditions: list[tuple[str, object]] = []
    if query.since is not None:
        conditions.append((f"{column} >= ?", query.since // unit_ms))
    if query.until is not None:
        conditions.append((f"{column} < ?", -(-query.until // unit_ms)))
    for name in ("account", "key", "model", "node"):
        value = getattr(query, name)
        if value is not None:
            conditions.append((f"{_COLUMNS[name]} = ?", value))
    return "".join(f" AND {sql}" for sql, _ in conditions), [value for _, value in conditions]
