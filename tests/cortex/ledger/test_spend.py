"""Batches of what was settled, as each store writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helexa.cortex.ledger import lives, spend
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.schema import migrate
from helexa.cortex.ledger.spend import Batch, Line
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.verify import verify

Connect = Callable[[], Database]

NAMES = ("plain", 'a"quote', "back\\slash", "per%cent ?", "line\nfeed", "schlüssel-😀")


def written(db: Database, lines: list[Line]) -> list[Line]:
    """What a new ledger has of these, once they were a batch."""
    migrate(db, STEPS)
    with db.transaction():
        life = lives.begin(db, "g", 1, 60).life
        assert life == 1
        values: list[object] = [value for line in lines for value in line]
        spend.write_batch(db, life, Batch(1, 7, values, [], [], spend.sums_of(lines)))
    columns = ", ".join(Line._fields)
    found = db.execute(f"SELECT {columns} FROM requests ORDER BY prompt")
    return [Line(*row) for row in found]


def test_every_value_of_a_settled_request_is_in_its_row_as_it_was(connection: Connect) -> None:
    lines = [
        Line(
            f"req_{name}", 1, 1, "settled", 1 << 41, f"account {name}", f"key {name}",
            f"node {name}", f"org/{name}", (None, 0, 1 << 40)[number % 3], 100, number, 3, 2, 1,
            0, number % 2,
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    db = connection()
    assert written(db, lines) == lines


def test_a_life_that_has_ended_writes_nothing_more_but_hears_what_it_had_written(
    connection: Connect,
) -> None:
    db = connection()
    line = Line("a", 1, 1, "settled", 7, "acme", "k", "n", "m", None, 9, 9)
    assert written(db, [line]) == [line]
    lives.end(db, 1, 1, 7, away=False)
    late: list[object] = [*line._replace(request_id="b")]
    spend.write_batch(db, 1, Batch(1, 7, late, [], [], {}))  # only its answer was lost
    with pytest.raises(spend.Fenced):
        spend.write_batch(db, 1, Batch(9, 7, late, [], [], {}))
    assert db.execute("SELECT request_id FROM requests") == [("a",)]


def test_buckets_are_forgotten_once_no_window_counts_them_any_more(connection: Connect) -> None:
    db = connection()
    migrate(db, STEPS)
    insert = "INSERT INTO buckets (scope, seconds, bucket, tokens) VALUES ('key:k', 60, ?, 1)"
    now = 1000  # of buckets of a second
    for bucket in range(now - 70, now + 1):
        db.execute(insert, (bucket,))
    spend.forget_old_buckets(db, now * 1000)
    assert db.execute("SELECT MIN(bucket), COUNT(*) FROM buckets") == [(now - 62, 63)]


def test_what_is_booked_ahead_of_the_clock_counts_from_now_on(connection: Connect) -> None:
    """A minute ahead may be another gateway's clock; an hour is one that was wrong."""
    db, now = connection(), 1_000_000
    line = Line("a", 1, 1, "settled", now + 60_000, "acme", "k", "n", "m", None, 9, 9)
    late = line._replace(request_id="b", at=now + 3_600_000)
    assert written(db, [line, late])
    insert = "INSERT INTO buckets (scope, seconds, bucket, tokens) VALUES ('key:k', 60, ?, 1)"
    for bucket in (now // 1000, now // 1000 + 60, now // 1000 + 3600, now // 1000 + 3700):
        db.execute(insert, (bucket,))
    spend.forget_the_future(db, now)
    assert db.execute("SELECT at FROM requests ORDER BY at") == [(now,), (now + 60_000,)]
    buckets = db.execute("SELECT bucket, tokens FROM buckets ORDER BY bucket")
    assert buckets == [(now // 1000, 3), (now // 1000 + 60, 1)]


def test_a_batch_of_many_statements_is_written_whole(connection: Connect) -> None:
    lines = [
        Line(f"req_{number}", 1, 1, "settled", 7, "acme", "k", "n", "m", None, number, number)
        for number in range(1, spend.JSON_ROWS + 300)
    ]
    db = connection()
    assert written(db, lines) == lines
    assert verify(db).ok
