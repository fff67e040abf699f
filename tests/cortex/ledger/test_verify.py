"""The ledger's sums, proven and disproven."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from helexa.cli.ledger import verify_command
from helexa.core.settings import SettingsError
from helexa.cortex.ledger import leasing, lives, spend
from helexa.cortex.ledger.database import Database, connect
from helexa.cortex.ledger.schema import migrate
from helexa.cortex.ledger.spend import Batch, Line
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.verify import verify

Connect = Callable[[], Database]


@pytest.fixture
def db(connection: Connect) -> Database:
    """A ledger with two keys, one with a window, and ten requests each."""
    db = connection()
    migrate(db, STEPS)
    at = int(time.time() * 1000)
    with db.transaction():
        life = lives.begin(db, "g", 1, 60).life
        leasing.register(db, [("key:one", [60])], at)
        lines = [
            Line(f"{key}{n}", 1, life, "settled", at, "acme", key, "n", "m", 100, n, n, 2 * n)
            for key in ("one", "two")
            for n in range(10)
        ]
        spend.write_batch(
            db,
            life,
            Batch(1, at, [v for line in lines for v in line], [], [], spend.sums_of(lines)),
        )
    return db


def test_a_sound_ledger_is_proven(db: Database) -> None:
    proof = verify(db)
    assert proof.ok, proof
    assert (proof.requests, proof.spent, proof.held) == (20, 270, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE scopes SET spent = spent - 1 WHERE scope = 'key:one'", "key:one: 134 spent, 135"),
        ("DELETE FROM requests WHERE request_id = 'two9'", "key:two: 135 spent, 108 in"),
        ("UPDATE requests SET granted = 26 WHERE request_id = 'two9'", "two9, attempt 1: 27 of 26"),
        (
            "UPDATE requests SET state = 'discarded' WHERE request_id = 'two9'",
            "two9, attempt 1: 27",
        ),
        ("UPDATE buckets SET tokens = tokens - 1", "key:one, 60 s: 134 of 135 are counted"),
        ("INSERT INTO blocks (scope, life, tokens) VALUES ('key:one', 1, -5)", "-5 held by life 1"),
        ("INSERT INTO blocks (scope, life, tokens) VALUES ('key:one', 9, 5)", "life 9 (unknown)"),
        ("DELETE FROM scopes WHERE scope = 'account:acme'", "account:acme: 270 in its requests"),
    ],
)
def test_whatever_does_not_add_up_is_named(db: Database, change: str, words: str) -> None:
    db.execute(change)
    proof = verify(db)
    assert not proof.ok
    assert words in " ".join(fault for check in proof.checks for fault in check.faults)


def test_a_ledger_of_another_version_is_not_judged(connection: Connect) -> None:
    db = connection()
    migrate(db, STEPS[:1])
    with pytest.raises(SettingsError, match="has version 1"):
        verify(db)


def test_verify_reads_one_state_while_a_gateway_writes(db: Database, connection: Connect) -> None:
    writer = connection()
    line = Line("late", 1, 1, "settled", 0, "acme", "one", "n", "m", 100, 9, 9)
    with db.snapshot():
        before = db.execute("SELECT SUM(spent) FROM scopes")
        with writer.transaction():
            spend.write_batch(writer, 1, Batch(2, 0, list(line), [], [], spend.sums_of([line])))
        assert db.execute("SELECT SUM(spent) FROM scopes") == before
    assert verify(db).spent == 279


def test_the_command_says_so_with_its_exit_status(db: Database, url: str) -> None:
    done = CliRunner().invoke(verify_command, ["--url", url])
    assert done.exit_code == 0
    assert "ok     nothing was settled beyond its grant" in done.stdout
    assert "270 tokens spent in 20 requests, 0 held" in done.stdout
    db.execute("UPDATE scopes SET spent = 0 WHERE scope = 'key:two'")
    done = CliRunner().invoke(verify_command, ["--url", url, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert [c["faults"] for c in found["checks"] if not c["ok"]] == [
        ["key:two: 0 spent, 135 in its requests"]
    ]


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(verify_command, ["--url", f"sqlite://{tmp_path}/none.db"])
    assert (done.exit_code, done.stdout) == (3, "")
    assert f"there is no ledger at {tmp_path}/none.db" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_backup_that_is_made_while_a_gateway_serves_is_a_whole_ledger(tmp_path: Path) -> None:
    db = connect(f"sqlite://{tmp_path}/ledger.db")
    migrate(db, STEPS)
    life = lives.begin(db, "g", 1, 60).life
    line = Line("one", 1, life, "settled", 0, "acme", "one", "n", "m", 100, 9, 9)
    with db.transaction():
        spend.write_batch(db, life, Batch(1, 0, list(line), [], [], spend.sums_of([line])))
    db.execute("VACUUM INTO ?", (f"{tmp_path}/backup.db",))
    db.close()
    done = CliRunner().invoke(verify_command, ["--url", f"sqlite://{tmp_path}/backup.db"])
    assert (done.exit_code, "9 tokens spent in 1 requests" in done.stdout) == (0, True)
