"""Sums of usage are the same however much of it has been put away."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from helexa.cortex.ledger.database import Database, insert
from helexa.cortex.ledger.schema import migrate
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.usage import (
    DAY_MS,
    DIMENSIONS,
    Dimension,
    Sums,
    UsageQuery,
    archive,
    requests,
    sums,
)

Connect = Callable[[], Database]
FIRST_DAY = 20_000
COLUMNS = ("request_id", "attempt", "life", "state", "at", "account_id", "key_id", "node", "model",
           "prompt", "completion", "cached", "reasoning")  # fmt: skip


@pytest.fixture
def db(connection: Connect) -> Database:
    made = connection()
    migrate(made, STEPS)
    return made


def put(db: Database, rows: list[dict[str, Any]]) -> None:
    empty = dict.fromkeys(COLUMNS, 0) | {"life": 1, "state": "settled", "attempt": 1}
    insert(
        db,
        f"INSERT INTO requests ({', '.join(COLUMNS)})",
        [[(empty | row)[name] for name in COLUMNS] for row in rows],
    )
    scopes = {f"key:{r['key_id']}" for r in rows} | {f"account:{r['account_id']}" for r in rows}
    for scope in sorted(scopes):
        db.execute("INSERT INTO scopes (scope) VALUES (?) ON CONFLICT DO NOTHING", (scope,))


def some(count: int, rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "request_id": f"req_{i}",
            "at": FIRST_DAY * DAY_MS + rng.randrange(5 * DAY_MS),
            "account_id": (account := rng.choice(["acme", "shop"])),
            "key_id": f"{account}-{rng.choice('ab')}",
            "node": rng.choice(["n0", "n1", ""]),
            "model": rng.choice(["m", "org/m"]),
            "prompt": (prompt := rng.randrange(1, 1000)),
            "completion": (completion := rng.randrange(1000)),
            "cached": rng.randrange(prompt),
            "reasoning": rng.randrange(completion + 1),
        }
        for i in range(count)
    ]


def reported(db: Database, *by: Dimension, **only: Any) -> dict[tuple[Any, ...], Sums]:
    """By the values of ``by``."""
    found: dict[tuple[Any, ...], Sums] = {}
    for values, figures in sums(db, UsageQuery(by, **only)):
        at = tuple(values[name] for name in by)
        found[at] = found.get(at, Sums()).plus(*figures)
    return found


def expected(rows: list[dict[str, Any]], *by: Dimension) -> dict[tuple[Any, ...], Sums]:
    """The same, added up here."""
    found: dict[tuple[Any, ...], Sums] = {}
    for row in rows:
        named = {"account": row["account_id"], "key": row["key_id"], "model": row["model"],
                 "node": row["node"], "day": row["at"] // DAY_MS}  # fmt: skip
        at = tuple(named[name] for name in by)
        found[at] = found.get(at, Sums()).plus(
            1, row["prompt"], row["cached"], row["completion"], row["reasoning"]
        )
    return found


def test_a_report_is_the_same_before_during_and_after_rows_are_put_away(db: Database) -> None:
    rows = some(400, random.Random(7))
    put(db, rows)
    groupings: list[tuple[Dimension, ...]] = [(), ("day", "model"), DIMENSIONS]
    groupings += [(dimension,) for dimension in DIMENSIONS]
    for cut in (0, 1.5, 1.5, 2.25, 9):
        before = int((FIRST_DAY + cut) * DAY_MS)
        while archive(db, before, most=64):
            pass
        left = [row for row in rows if row["at"] >= before]
        assert db.execute("SELECT COUNT(*) FROM requests") == [(len(left),)]
        for by in groupings:
            assert reported(db, *by) == expected(rows, *by)


def test_what_was_put_away_is_accounted_for_in_every_scope(db: Database) -> None:
    rows = some(100, random.Random(8))
    put(db, rows)
    cut = (FIRST_DAY + 2) * DAY_MS
    archive(db, cut)
    for kind, column in (("key", "key_id"), ("account", "account_id")):
        for name in {row[column] for row in rows}:
            away = sum(
                row["prompt"] + row["completion"]
                for row in rows
                if row[column] == name and row["at"] < cut
            )
            found = db.execute("SELECT archived FROM scopes WHERE scope = ?", (f"{kind}:{name}",))
            assert found == [(away,)]


def test_a_report_can_be_of_one_account_key_model_or_node_and_of_a_time(db: Database) -> None:
    rows = some(200, random.Random(9))
    put(db, rows)
    archive(db, (FIRST_DAY + 2) * DAY_MS)
    for name, column in (("account", "account_id"), ("key", "key_id"), ("model", "model"),
                         ("node", "node")):  # fmt: skip
        for value in {row[column] for row in rows}:
            mine = [row for row in rows if row[column] == value]
            assert reported(db, "day", **{name: value}) == expected(mine, "day")
    since, until = (FIRST_DAY + 1) * DAY_MS, (FIRST_DAY + 4) * DAY_MS
    within = [row for row in rows if since <= row["at"] < until]
    assert reported(db, "key", since=since, until=until) == expected(within, "key")
    assert reported(db, "key", account="nobody") == {}


def test_open_requests_and_those_that_cost_nothing_are_no_usage(db: Database) -> None:
    row = {"account_id": "a", "key_id": "k", "node": "n", "model": "m", "at": FIRST_DAY * DAY_MS}
    put(db, [{**row, "request_id": "open", "state": "open", "prompt": 5},
             {**row, "request_id": "gone", "state": "expired", "prompt": 3},
             {**row, "request_id": "nothing"}])  # fmt: skip
    for _ in range(2):
        assert reported(db, "key") == {("k",): Sums(1, 3, 0, 0, 0)}
        archive(db, (FIRST_DAY + 1) * DAY_MS)
    assert db.execute("SELECT request_id FROM requests") == [("open",)]


def test_single_requests_come_newest_first_and_no_more_than_asked_for(db: Database) -> None:
    rows = some(50, random.Random(10))
    put(db, rows)
    newest = sorted(rows, key=lambda row: (-row["at"], row["request_id"]))
    assert [r.request_id for r in requests(db, UsageQuery(), 10)] == [
        row["request_id"] for row in newest[:10]
    ]
    mine = requests(db, UsageQuery(key="acme-a"), 100)
    assert [r.request_id for r in mine] == [
        row["request_id"] for row in newest if row["key_id"] == "acme-a"
    ]


def test_two_gateways_that_put_away_at_once_count_every_row_once(connection: Connect) -> None:
    import threading

    first = connection()
    migrate(first, STEPS)
    rows = some(600, random.Random(11))
    put(first, rows)

    def work(db: Database) -> None:
        done = 32
        while done >= 32:
            with db.transaction():
                done = archive(db, (FIRST_DAY + 9) * DAY_MS, most=32)

    others = [connection(), connection()]
    threads = [threading.Thread(target=work, args=[db]) for db in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    work(first)  # what was locked by both when both looked
    assert first.execute("SELECT COUNT(*) FROM requests") == [(0,)]
    assert reported(first, "key", "day") == expected(rows, "key", "day")
