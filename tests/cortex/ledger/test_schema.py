"""Connections and migrations, of both databases."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
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

Connect = Callable[[], Database]

ONE = Step("one", ("CREATE TABLE a (n BIGINT PRIMARY KEY, t TEXT) WITHOUT ROWID",))
TWO = Step("two", ("CREATE TABLE b (n BIGINT)", "INSERT INTO b (n) SELECT n FROM a"))
BROKEN = Step("broken", ("CREATE TABLE c (n BIGINT)", "INSERT INTO nowhere (n) VALUES (1)"))


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
    with pytest.raises(LedgerUnavailable, match=r"not a database\. Set ledger\.url"):
        connect(f"sqlite://{tmp_path}/other")


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerUnavailable, match="the ledger postgresql") as caught:
        connect(f"postgresql://me:hunter2@/db?host={tmp_path}")
    assert "hunter2" not in str(caught.value)
    assert masked("postgresql://me:hunter2@h:1/db") == "postgresql://me:***@h:1/db"
