from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.bench.made import run

from helexa.bench.row import CellKey
from helexa.bench.store.export import to_csv, to_parquet
from helexa.bench.store.reader import Reader, RunFilter
from helexa.bench.store.schema import MIGRATIONS, StoreError
from helexa.bench.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bench.sqlite"


def test_a_run_comes_back_as_it_was_stored(path: Path) -> None:
    store = Store(path)
    kept = run(5.0, artifact="Paris", cached_tokens=3, refused=2)
    store.add(kept)
    (found,) = store.runs()
    store.close()
    assert found.id == 1
    assert (found.source, found.model, found.result) == (kept.source, kept.model, kept.result)


def test_a_run_that_is_stored_twice_counts_once(path: Path) -> None:
    store = Store(path)
    assert store.add(run(5.0))
    assert not store.add(run(5.0))
    assert store.counts(["1.0+aaa"]) == {CellKey("beast", "1.0+aaa", "m", "chat:128"): 1}
    store.close()


def test_a_sweep_reads_the_counts_of_the_builds_that_it_measures_and_no_others(path: Path) -> None:
    store = Store(path)
    store.add_many(run(float(i), build=f"1.{i}") for i in range(9))
    assert {key.build for key in store.counts(["1.7", "1.8", "1.8", "2.0"])} == {"1.7", "1.8"}
    store.close()


def test_failed_runs_are_kept_and_do_not_count_as_samples(path: Path) -> None:
    store = Store(path)
    store.add(run(1.0))
    store.add(run(2.0, ok=False, error="cut", first=None, rate=None))
    (cell,) = Reader(path).latest_cells(depth=9)
    store.close()
    assert (cell.ok_runs, cell.failed_runs) == (1, 1)
    assert cell.samples["first_token_ms"] == [100.0]


def test_the_summary_of_a_cell_is_that_of_its_runs_whatever_the_order(path: Path) -> None:
    store = Store(path)
    store.add_many([run(float(i), first=100.0 + i) for i in (3, 1, 2)])
    store.add(run(4.0, first=104.0))
    before = Reader(path).latest_cells(depth=9)
    store.rebuild_cells()
    assert Reader(path).latest_cells(depth=9) == before
    store.close()
    assert before[0].samples["first_token_ms"] == [104.0, 103.0, 102.0, 101.0]


def of_schema_1(path: Path) -> None:
    """A store as the first schema had it, with one run."""
    store = Store(path)
    store.add(run(1.0))
    store.close()
    with sqlite3.connect(path) as db:
        db.executescript(
            "DROP TABLE cells; DROP TABLE lines; DROP TABLE builds; PRAGMA user_version = 1;"
        )
    db.close()


def test_an_older_schema_is_brought_up_and_keeps_its_runs(path: Path) -> None:
    of_schema_1(path)
    with pytest.raises(StoreError, match="schema 1"):
        Reader(path)
    Store(path).close()
    assert len(Reader(path).latest_cells(depth=9)) == 1


def test_a_newer_schema_is_refused_with_what_to_do(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match=r"newer helexa.*upgrade"):
        Store(path)


def test_a_truncated_file_is_refused_with_what_to_do(path: Path) -> None:
    store = Store(path)
    store.add_many([run(float(i)) for i in range(200)])
    store.close()
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(StoreError, match=r"damaged.*restore a backup"):
        list(Store(path).runs())
        Store(path).rebuild_cells()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(StoreError, match="not a bench database"):
        Store(path)


def test_a_full_disk_stores_nothing_of_a_run_and_says_so(path: Path) -> None:
    store = Store(path)
    store.add(run(1.0))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        store.add(run(2.0, artifact="x" * 100_000))
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert store.add(run(3.0))
    assert sum(store.counts(["1.0+aaa"]).values()) == 2
    store.close()


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.bench.made import run
from pathlib import Path
from helexa.bench.store.store import Store
store = Store(Path(sys.argv[1]))
i = 0
while True:
    i += 1
    store.add(run(float(i), target=f"t{i % 7}"))
    if i == 20:
        print("going", flush=True)
"""


def test_killed_in_the_middle_of_writing_nothing_is_half_written(path: Path) -> None:
    root = str(Path(__file__).parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), root], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"going\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(30)
    writer.stdout.close()
    store = Store(path)
    counts = store.counts(["1.0+aaa"])
    store.rebuild_cells()
    assert store.counts(["1.0+aaa"]) == counts
    assert sum(counts.values()) == len(list(store.runs())) >= 20
    assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    store.close()


def test_a_reader_in_the_middle_of_an_answer_does_not_hold_the_writer_up(path: Path) -> None:
    store = Store(path)
    store.add_many([run(float(i)) for i in range(50)])
    reader = Reader(path)
    reader.dimensions()
    cursor = reader._local.held.db.execute("SELECT * FROM runs")
    cursor.fetchone()  # a read transaction stays open
    store.add(run(99.0))
    assert len(cursor.fetchall()) == 49
    assert reader.runs(RunFilter())[0] == 51
    store.close()


def test_runs_are_filtered_sorted_and_paged(path: Path) -> None:
    store = Store(path)
    store.add_many([run(float(i), first=float(i % 5), target=f"t{i % 2}") for i in range(20)])
    store.add(run(50.0, target="t0", ok=False, error="cut"))
    store.close()
    reader = Reader(path)
    count, page = reader.runs(RunFilter(target="t0", ok=True), sort="first_token_ms", limit=3)
    assert count == 10
    assert [r.result.first_token_ms for r in page] == [4.0, 4.0, 3.0]
    assert reader.runs(RunFilter(ok=False))[1][0].result.error == "cut"
    assert len(reader.runs(RunFilter(), limit=5, offset=19)[1]) == 2


def test_runs_without_a_figure_are_sorted_behind_those_that_have_it(path: Path) -> None:
    store = Store(path)
    store.add_many([run(1.0, first=None, ok=False), run(2.0, first=9.0), run(3.0, first=5.0)])
    store.close()
    for descending, wanted in ((True, [9.0, 5.0, None]), (False, [5.0, 9.0, None])):
        _, page = Reader(path).runs(RunFilter(), sort="first_token_ms", descending=descending)
        assert [one.result.first_token_ms for one in page] == wanted


def test_a_sort_key_from_a_client_is_never_sql(path: Path) -> None:
    Store(path).close()
    assert Reader(path).runs(RunFilter(), sort="at; DROP TABLE runs")[0] == 0


def test_the_latest_builds_of_every_line_are_found(path: Path) -> None:
    store = Store(path)
    for build in range(5):
        store.add(run(float(build), build=f"b{build}"))
    store.add(run(2.5, build="other", scenario="tools"))
    store.close()
    found = [(c.scenario, c.build) for c in Reader(path).latest_cells(depth=2)]
    assert found == [("chat:128", "b3"), ("chat:128", "b4"), ("tools", "other")]


def test_export_to_csv_and_parquet_loses_nothing(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    store.add_many([run(float(i), first=None if i else 1.5) for i in range(3)])
    csv = tmp_path / "runs.csv"
    with csv.open("w", newline="") as out:
        assert to_csv(Reader(path).every_run(), out) == 3
    header, first, *_ = csv.read_text().splitlines()
    kept = dict(zip(header.split(","), first.split(","), strict=True))
    assert {name: kept[name] for name in ("at", "target", "ok", "first_token_ms", "load_ms")} == {
        "at": "0.0", "target": "beast", "ok": "1", "first_token_ms": "1.5", "load_ms": "",
    }  # fmt: skip
    pq = pytest.importorskip("pyarrow.parquet")
    assert to_parquet(Reader(path).every_run(), tmp_path / "runs.parquet") == 3
    table = pq.read_table(tmp_path / "runs.parquet")
    assert table["first_token_ms"].to_pylist() == [1.5, None, None]
    store.close()


SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2"


def test_thinned_out_old_builds_keep_their_trends_and_the_newest_their_runs(path: Path) -> None:
    with contextlib.closing(Store(path)) as store:
        for build in range(6):
            store.add_many(
                run(
                    build * 100.0 + i, build=f"1.{build}", scenario=scenario, first=50.0 + build + i
                )
                for i in range(3)
                for scenario in ("chat:1", "chat:2")
            )
        store.add(run(1.0, target="other", build="0.9"))
        before = Reader(path).latest_cells(depth=10)
        schema = store._db.execute(SCHEMA).fetchall()
        numbers = {r.id for r in store.runs() if r.source.build in ("0.9", "1.4", "1.5")}
        assert store.forget_runs(keep=2) == 4 * 2 * 3
        assert store._db.execute(SCHEMA).fetchall() == schema
        assert {r.id for r in store.runs()} == numbers
        assert Reader(path).latest_cells(depth=10) == before
        assert {r.source.build for r in store.runs()} == {"0.9", "1.4", "1.5"}
        assert store.counts(["1.0"]) == dict.fromkeys(
            (CellKey("beast", "1.0", "m", name) for name in ("chat:1", "chat:2")), 3
        )  # and no sweep makes them again
        store.compact()
        assert store._db.execute("PRAGMA freelist_count").fetchone()[0] == 0


def test_there_is_no_database_yet_is_said_in_words(path: Path) -> None:
    with pytest.raises(StoreError, match="helexa bench once"):
        Reader(path)


def test_killed_while_an_older_schema_is_brought_up_it_is_still_the_older_one(path: Path) -> None:
    of_schema_1(path)
    killed = (
        "import os, sys; from pathlib import Path; from helexa.bench.store.store import Store; "
        "Store._renew_cell = lambda *_: os.kill(os.getpid(), 9); Store(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False, timeout=60)
    Store(path).close()
    assert len(Reader(path).latest_cells(depth=9)) == 1


def test_scenarios_are_listed_in_the_order_of_their_sizes(path: Path) -> None:
    store = Store(path)
    names = ["chat:128", "chat:1024", "chat:4096", "concurrency:4", "concurrency:16", "tools"]
    store.add_many(run(1.0, scenario=name) for name in sorted(names))
    store.close()
    reader = Reader(path)
    assert reader.dimensions()["scenario"] == names
    assert [cell.scenario for cell in reader.latest_cells()] == names
    assert [cell.scenario for cell in reader.build_cells("1.0+aaa")] == names


def test_a_name_with_signs_of_an_address_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20d.sqlite"
    store = Store(path)
    store.add(run(1.0))
    store.close()
    assert len(Reader(path).latest_cells()) == 1
    assert all(file.name.startswith(path.name) for file in tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, which only root can become")
def test_who_may_only_read_the_folder_can_read_the_store(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="helexa-bench-"))  # pytest's folders are its user's own
    try:
        path = folder / "bench.sqlite"
        store = Store(path)
        store.add(run(1.0))
        store.close()
        folder.chmod(0o755)
        path.chmod(0o644)
        reads = """if True:
            import os, sys
            import urllib.parse  # while the interpreter's own files may be read
            from pathlib import Path
            from helexa.bench.store.reader import Reader
            try:
                os.setgid(65534)
                os.setuid(65534)
            except OSError:
                sys.exit("no other user here")
            print(len(Reader(Path(sys.argv[1])).latest_cells()))
        """
        done = subprocess.run(
            [sys.executable, "-c", reads, str(path)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if "no other user here" in done.stderr:
            pytest.skip("this container has no other user")
        assert done.stdout == "1\n", done.stderr
    finally:
        shutil.rmtree(folder)
