"""The ledger's threads: groups, failures, and a loop that never waits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from helexa.core.errors import ServiceUnavailable
from helexa.core.settings import SettingsError
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.database import Conflict, Database, LedgerUnavailable, connect
from helexa.cortex.ledger.keys_sql import SqlKeys
from helexa.cortex.ledger.schema import Step, version_of
from helexa.cortex.ledger.store import Store
from helexa.cortex.ledger.tables import STEPS

pytestmark = pytest.mark.anyio

NAMES = Step("names", ("CREATE TABLE names (name TEXT PRIMARY KEY)",))


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = Store(url, asyncio.get_running_loop(), [NAMES])
    yield store
    await store.close()


def add(name: str) -> Any:
    def work(db: Database) -> str:
        db.execute("INSERT INTO names (name) VALUES (?)", (name,))
        return name

    return work


def names(db: Database) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM names ORDER BY name")]


async def test_what_was_written_is_there_for_readers_and_after_a_crash(
    store: Store, url: str
) -> None:
    assert await store.write(add("a")) == "a"
    assert await store.read(names) == ["a"]
    other = connect(url)  # without closing the first, as after a crash
    assert names(other) == ["a"]
    other.close()


async def test_while_a_report_takes_its_time_it_is_heard_which_keys_have_been_revoked(
    url: str,
) -> None:
    store = Store(url, asyncio.get_running_loop())
    entered, over = threading.Event(), threading.Event()

    def counts_millions(db: Database) -> int:
        entered.set()
        over.wait(60)
        return version_of(db)

    report = asyncio.create_task(store.report(counts_millions))
    try:
        assert await asyncio.to_thread(entered.wait, 60)
        assert await asyncio.wait_for(SqlKeys(store).revision(), 30) == 0
        assert not report.done()
    finally:
        over.set()
    assert await report == len(STEPS)
    await store.close()


async def test_a_process_that_looks_and_leaves_does_not_take_the_log_along(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    store = Store(f"sqlite://{file}", asyncio.get_running_loop(), [NAMES])
    look = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "print([name for name, in db.execute('SELECT name FROM names ORDER BY name')]); db.close()"
    )
    try:
        for name, seen in (("a", "['a']"), ("b", "['a', 'b']"), ("c", "['a', 'b', 'c']")):
            await store.write(add(name))
            assert name in await store.read(names)  # the reader's connection opens the file too
            found = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", look, str(file)], capture_output=True,
                text=True, check=True, timeout=60,
            )  # fmt: skip
            assert found.stdout.strip() == seen
            assert file.with_name("ledger.db-wal").exists()
    finally:
        await store.close()


async def test_jobs_that_wait_together_are_one_transaction(store: Store) -> None:
    go = threading.Event()
    ids: list[int] = []

    def waits(_db: Database) -> None:
        go.wait(60)

    def look(db: Database) -> None:
        ids.append(db.execute("SELECT count(*) FROM names")[0][0])

    jobs = [store.write(work) for work in (waits, add("a"), add("b"), look)]
    tasks = [asyncio.ensure_future(job) for job in jobs]
    await asyncio.sleep(0)  # all are asked for before the first may end
    seen = await store.read(names)
    go.set()
    await asyncio.gather(*tasks)
    assert seen == []
    assert ids == [2]


async def test_a_job_that_fails_fails_alone(store: Store) -> None:
    await store.write(add("a"))
    done = await asyncio.gather(
        store.write(add("b")),
        store.write(add("a")),
        store.write(add("c")),
        return_exceptions=True,
    )
    assert done[0] == "b"
    assert isinstance(done[1], Conflict)
    assert done[2] == "c"
    assert await store.read(names) == ["a", "b", "c"]


async def test_a_ledger_that_cannot_be_used_is_unavailable_not_a_bug(store: Store) -> None:
    with pytest.raises(ServiceUnavailable, match="ledger cannot be used just now") as caught:
        await store.write(lambda db: db.execute("SELECT * FROM nowhere"))
    assert isinstance(caught.value.__cause__, LedgerUnavailable)
    assert caught.value.retry_after_s


async def test_closing_finishes_what_was_asked_for(url: str) -> None:
    store = Store(url, asyncio.get_running_loop(), [NAMES])
    outcomes: list[object] = []
    for name in "abc":
        store.submit(add(name), outcomes.append)
    await store.close()
    await store.close()
    assert outcomes == ["a", "b", "c"]


async def test_a_ledger_of_a_newer_helexa_stops_the_start(store: Store, url: str) -> None:
    with pytest.raises(SettingsError, match="a newer helexa has used it"):
        Store(url, asyncio.get_running_loop(), [])


async def test_no_newer_helexa_changes_the_tables_under_gateways_that_serve_from_them(
    url: str,
) -> None:
    loop, newer = asyncio.get_running_loop(), [*STEPS, NAMES]
    older = Store(url, loop)
    life = await older.write(lambda db: lives.begin(db, "db-host-31313", 1, 3600.0))
    words = r"an older helexa.*db-host-31313\. Stop them first; .*count for \d+ s yet"
    with pytest.raises(LedgerUnavailable, match=words):
        Store(url, loop, newer)
    assert await older.read(version_of) == len(STEPS)  # and it serves on
    await older.write(lambda db: lives.end(db, life.life, life.life, 1, away=False))
    await older.close()
    store = Store(url, loop, newer)
    assert await store.read(version_of) == len(newer)
    await store.close()


async def test_a_gateway_that_is_alone_by_its_lock_waits_for_no_lease_of_its_dead(
    url: str,
) -> None:
    loop = asyncio.get_running_loop()
    older = Store(url, loop)
    await older.write(lambda db: lives.begin(db, "killed", 1, 3600.0))
    await older.close()
    store = Store(url, loop, [*STEPS, NAMES], alone=True)
    assert await store.read(version_of) == len(STEPS) + 1
    await store.close()
