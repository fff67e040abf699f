"""Batches of what was settled, as each store writes them."""

from __future__ import annotations

from collections.abc import Callable

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


def test_a_batch_of_many_statements_is_written_whole(connection: Connect) -> None:
    lines = [
        Line(f"req_{number}", 1, 1, "settled", 7, "acme", "k", "n", "m", None, number, number)
        for number in range(1, spend.JSON_ROWS + 300)
    ]
    db = connection()
    assert written(db, lines) == lines
    assert verify(db).ok
