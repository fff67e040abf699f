"""Connections and migrations, of both databases."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
from helexa.cortex.ledger import lives, usage
from helexa.cortex.ledger.database import (
    Conflict,
    Database,
    LedgerUnavailable,
    connect,
    insert,
    masked,
)
from helexa.cortex.ledger.schema import Step, migrate, version_of
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.verify import verify

Connect = Callable[[], Database]

ONE = Step("one", ("CREATE TABLE a (n BIGINT PRIMARY KEY, t TEXT) WITHOUT ROWID",))
TWO = Step("two", ("CREATE TABLE b (n BIGINT)", "INSERT INTO b (n) SELECT n FROM a"))
BROKEN = Step("broken", ("CREATE TABLE c (n BIGINT)", "INSERT INTO nowhere (n) VALUES (1)"))

TAKEN = ("4293ef6e9db5d6c3", "ec96cf3632e97108", "9580073f94c8f573")
"""Checksums of the steps, in order."""

FIRST_ROWS = (
    (
        "INSERT INTO lives (life, gateway, epoch, state, lease_until, keeper, kept_until) "
        "VALUES (1, 'g', 1, 'live', 0, 1, 0)"
    ),
    (
        "INSERT INTO scopes (scope, spent, requests, prompt, completion) VALUES "
        "('key:k', 30, 1, 20, 10), ('account:a', 30, 1, 20, 10)"
    ),
    "INSERT INTO blocks (scope, life, tokens) VALUES ('key:k', 1, 70)",
    "INSERT INTO windows (scope, seconds) VALUES ('key:k', 60)",
    "INSERT INTO buckets (scope, seconds, bucket, tokens) VALUES ('key:k', 60, 0, 30)",
    (
        "INSERT INTO requests (request_id, attempt, life, state, at, account_id, key_id, node, "
        "model, granted, used, prompt, completion, cached) VALUES "
        "('done', 1, 1, 'settled', 1, 'a', 'k', 'n', 'm', 50, 30, 20, 10, 5), "
        "('runs', 1, 1, 'open', 1, 'a', 'k', 'n', 'm', 70, 12, 0, 0, 0)"
    ),
)
"""A ledger as the first version left it: words of this test, that no change of the code changes."""


def test_a_new_ledger_takes_every_step_and_an_old_one_those_that_are_missing(
    connection: Connect,
) -> None:
    db = connection()
    assert migrate(db, [ONE]) == 1
    db.execute("INSERT INTO a (n, t) VALUES (?, ?)", (7, "seven"))
    assert migrate(db, [ONE, TWO]) == 2
    assert migrate(db, [ONE, TWO]) == 2
    assert db.execute("SELECT n FROM b") == [(7,)]
    assert version_of(db) == 2
    assert db.execute("SELECT version, name FROM ledger_steps ORDER BY version") == [
        (1, "one"),
        (2, "two"),
    ]


def test_a_step_that_fails_changes_nothing(connection: Connect) -> None:
    db = connection()
    migrate(db, [ONE])
    with pytest.raises(LedgerUnavailable, match="nowhere"):
        migrate(db, [ONE, TWO, BROKEN])
    assert version_of(db) == 1
    assert migrate(db, [ONE, TWO]) == 2  # not even what came before the failure was kept


def test_a_ledger_of_a_newer_helexa_is_refused_and_not_touched(connection: Connect) -> None:
    db = connection()
    migrate(db, [ONE, TWO])
    with pytest.raises(SettingsError, match="version 2, this helexa knows up to 1; a newer"):
        migrate(db, [ONE])
    assert version_of(db) == 2


def test_many_who_open_a_ledger_at_once_take_each_step_once(connection: Connect) -> None:
    dbs = [connection() for _ in range(4)]
    faults: list[BaseException] = []

    def run(db: Database) -> None:
        try:
            migrate(db, STEPS)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(db,)) for db in dbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert version_of(dbs[0]) == len(STEPS)


def test_a_step_that_ledgers_have_been_through_is_never_changed() -> None:
    """Whoever adds one adds its checksum; a change of an old one belongs into a new step."""
    texts = ["\n".join((step.name, *step.sql)) for step in STEPS]
    assert tuple(sha256(text.encode()).hexdigest()[:16] for text in texts) == TAKEN


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
def test_a_ledger_of_every_version_opens_and_its_sums_are_proven(
    connection: Connect, version: int
) -> None:
    db = connection()
    migrate(db, STEPS[:version])
    for sql in FIRST_ROWS:
        db.execute(sql)
    assert migrate(db, STEPS) == len(STEPS)
    proof = verify(db)
    assert proof.ok, proof.checks
    assert (proof.version, proof.requests, proof.spent, proof.held) == (len(STEPS), 2, 30, 70)
    # It goes on where it was: the next life of its gateway settles what the last one has left.
    with db.transaction():
        life = lives.begin(db, "g", 2, 60.0)
        (dead,) = lives.adopt(db, life.life, "g", 60.0, alone=True, grace_s=0.0)
        lives.end(db, life.life, dead.life, at=2, away=False)
        assert usage.archive(db, before=10) == 2
    assert verify(db).ok
    reported = [tuple(found) for _, found in usage.sums(db, usage.UsageQuery())]
    assert reported == [(1, 20, 5, 10, 0)]


def test_a_transaction_is_all_or_nothing(connection: Connect) -> None:
    db = connection()
    migrate(db, [ONE])
    with pytest.raises(Conflict), db.transaction():
        insert(db, "INSERT INTO a (n, t)", [(1, "x"), (2, "%s ?")])
        db.execute("INSERT INTO a (n, t) VALUES (1, 'again')")
    assert db.execute("SELECT n FROM a") == []
    with pytest.raises(KeyError), db.transaction():
        db.execute("INSERT INTO a (n, t) VALUES (3, 'x')")
        raise KeyError
    with db.transaction():
        insert(
            db, "INSERT INTO a (n, t)", [(n, "%s ?") for n in range(200)], "ON CONFLICT DO NOTHING"
        )
    assert db.execute("SELECT count(*), min(t), max(n) FROM a") == [(200, "%s ?", 199)]


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.db"
    db = connect(f"sqlite://{path}")
    migrate(db, STEPS)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    db.close()


@pytest.mark.parametrize(
    "url", ["sqlite://ledger.db", "sqlite:///", "ledger.db", "mysql://host/db", "sqlite:///tmp/"]
)
def test_a_url_that_is_no_ledger_is_refused_with_the_way_to_write_one(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^ledger\.url: .*write "):
        connect(url)


def test_a_path_that_cannot_be_used_is_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        LedgerUnavailable, match=r"file/ledger\.db cannot be opened: .*/file is not a folder"
    ):
        connect(f"sqlite://{tmp_path}/file/ledger.db")
    (tmp_path / "other").write_text("this is no database, but long enough to be looked at" * 100)
    with pytest.raises(LedgerUnavailable, match=r"not a database\. Put a backup .* ledger\.url"):
        connect(f"sqlite://{tmp_path}/other")


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerUnavailable, match="the ledger postgresql") as caught:
        connect(f"postgresql://me:hunter2@/db?host={tmp_path}")
    assert "hunter2" not in str(caught.value)
    assert masked("postgresql://me:hunter2@h:1/db") == "postgresql://me:***@h:1/db"
    asked = "postgresql://h/db?user=me&password={0}&sslmode=require&sslpassword={0}"
    assert masked(asked.format("hunter2")) == asked.format("***")
    assert masked("sqlite:///a/ledger.db") == "sqlite:///a/ledger.db"
    assert masked("postgresql:///db?host=/run") == "postgresql:///db?host=/run"
