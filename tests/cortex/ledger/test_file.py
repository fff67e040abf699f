"""What can happen to a ledger's file while a gateway serves from it."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.cortex.ledger.rig import START, Rig, hard

from helexa.core.errors import ServiceUnavailable
from helexa.core.logging import configure
from helexa.cortex.ledger.database import LedgerUnavailable, connect
from helexa.cortex.ledger.verify import verify

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
async def rig(file: Path) -> AsyncIterator[Rig]:
    """One whose key ``k`` has spent 600 of 1000, which the reader has seen."""
    rig = Rig(f"sqlite://{file}", "g", 1, [START])
    await rig.take(hard(1000), "a", 600)
    rig.end("a", 600)
    await rig.book.written()
    assert await spent(rig) == 600
    yield rig
    await rig.store.close()


def remove(*files: Path) -> None:
    for file in set(files):
        file.unlink()


async def spent(rig: Rig) -> int:
    rows = await rig.store.read(
        lambda db: db.execute("SELECT spent FROM scopes WHERE scope = 'key:k'")
    )
    return int(rows[0][0])


@pytest.mark.parametrize("beside", ["", "-wal", "-shm"])
async def test_a_file_that_is_removed_under_us_is_back_with_all_that_was_spent(
    file: Path, rig: Rig, beside: str
) -> None:
    stream = io.StringIO()
    sink = configure("info", stream)
    remove(file, Path(f"{file}{beside}"))
    assert await rig.take(hard(1000), "b", 300) == 300
    rig.end("b", 300)
    await rig.book.written()
    assert await spent(rig) == 900
    sink.close()
    assert "is written back" in json.loads(stream.getvalue().splitlines()[0])["what"]
    await rig.store.close()
    db = connect(f"sqlite://{file}")
    proof = verify(db)
    db.close()
    assert (proof.ok, proof.spent) == (True, 900)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600  # noqa: PTH116


async def test_a_removed_file_is_back_though_nothing_is_written(file: Path, rig: Rig) -> None:
    shutil.rmtree(file.parent)
    rig.store.look_after()
    await rig.store.write(lambda db: None)
    assert await spent(rig) == 600
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT spent FROM scopes").fetchall()


async def test_whoever_reads_while_the_file_is_gone_makes_no_other_in_its_place(
    file: Path, rig: Rig
) -> None:
    remove(file)
    with pytest.raises(ServiceUnavailable):  # the first report connects
        await rig.store.report(lambda db: db.execute("SELECT 1"))
    await rig.store.write(lambda db: None)
    assert await rig.store.report(lambda db: db.execute("SELECT spent FROM scopes"))
    assert await spent(rig) == 600


async def test_another_file_in_its_place_is_not_written_to_until_somebody_has_decided(
    file: Path, rig: Rig
) -> None:
    aside = f"{file}.aside"
    os.rename(file, aside)  # noqa: PTH104
    shutil.copy(aside, file)
    with pytest.raises(ServiceUnavailable) as refused:
        await rig.store.write(lambda db: None)
    assert "replaced while it is in use. Put the file back" in str(refused.value.__cause__)
    os.rename(aside, file)  # noqa: PTH104
    await rig.store.write(lambda db: None)
    assert await spent(rig) == 600


async def test_a_lock_of_another_program_is_told_and_over_with_it(file: Path, rig: Rig) -> None:
    rig.store._db.execute("PRAGMA busy_timeout = 50")
    locker = sqlite3.connect(file, isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ServiceUnavailable) as refused:
        await rig.store.write(lambda db: None)
    assert "is locked. Another program has locked it: end that" in str(refused.value.__cause__)
    with pytest.raises(ServiceUnavailable):
        await rig.take(hard(1000, "other"), "b", 10)
    locker.close()
    assert await rig.take(hard(1000, "other"), "b", 10) == 10


def test_what_is_no_ledger_says_what_to_do(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database at all, but longer than a header of one would be " * 20)
    with pytest.raises(LedgerUnavailable, match=r"not a database\. Put a backup in its place"):
        connect(f"sqlite://{file}")
