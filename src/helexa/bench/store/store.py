"""Writing and reading runs.

A run and its cell's summary are written in one transaction, keyed by the run's own key: what was
killed in the middle is not there, what is stored twice is there once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from helexa.bench.row import CellKey, DeviceState, ModelFacts, Provenance, Result, Run
from helexa.bench.store.cell import METRICS, samples_of
from helexa.bench.store.schema import (
    FIRST_TABLES,
    RUN_COLUMNS,
    StoreError,
    migrate,
    unusable,
)

KEPT_SAMPLES = 40
"""Newest runs of a cell that its summary rests on."""

_INSERT = (
    f"INSERT OR IGNORE INTO runs ({', '.join(RUN_COLUMNS)}) "  # noqa: S608  # names of our own
    f"VALUES ({', '.join(':' + name for name in RUN_COLUMNS)})"
)
_INDEXES = "SELECT name FROM sqlite_schema WHERE tbl_name = 'runs' AND type = 'index' AND sql > ''"
_NEWEST = """
INSERT INTO runs
SELECT runs_before.* FROM (
  SELECT *, row_number() OVER (PARTITION BY target, model, scenario ORDER BY first_at DESC) AS nth
  FROM (SELECT target, model, scenario, build, first_at FROM cells)
) AS cell CROSS JOIN runs_before USING (target, model, scenario, build)
WHERE nth <= ? ORDER BY runs_before.id
"""
_STATES = (("before", DeviceState), ("after", DeviceState))
_STATE_FIELDS = {"memory_used_mb": "memory_{}_mb", "utilization_pct": "utilization_{}_pct",
                 "temp_c": "temp_{}_c"}  # fmt: skip


def connect(path: Path, *, readonly: bool = False, immutable: bool = False) -> sqlite3.Connection:
    """A connection of one's own; readers see what was committed and block nobody.

    For one thread at a time, but not always the same one.

    Args:
        immutable: Nobody writes the file meanwhile, so that nothing is needed beside it.

    Raises:
        StoreError: The file cannot be opened.
    """
    try:
        if readonly:
            address = f"{path.absolute().as_uri()}?mode=ro"  # names may hold ? and #
            address += "&immutable=1" if immutable else ""
            db = sqlite3.connect(address, uri=True, timeout=5, check_same_thread=False)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=30, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be opened: {error}") from error
    db.isolation_level = None
    db.row_factory = sqlite3.Row
    return db


class Store:
    """The writer's side. Used from one thread at a time.

    Args:
        path: Made if missing, migrated if old.

    Raises:
        StoreError: It cannot be used; says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = connect(path)
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as error:
            raise unusable(self.path, error) from error
        migrate(self._db, self.path, self._sum_up)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def add(self, run: Run) -> bool:
        """Store a run; False when its key is there already.

        Raises:
            StoreError: It could not be written (a full disk); nothing of it is stored.
        """
        with self._transaction():
            added = self._db.execute(_INSERT, to_row(run)).rowcount > 0
            if added:
                self._renew_cell(cell_key(run))
        return added

    def add_many(self, runs: Iterable[Run]) -> int:
        """Store many at once; their cells are summed up once each."""
        added = 0
        with self._transaction():
            cells = set()
            for run in runs:
                if self._db.execute(_INSERT, to_row(run)).rowcount > 0:
                    added += 1
                    cells.add(cell_key(run))
            for key in cells:
                self._renew_cell(key)
        return added

    def counts(self, builds: Iterable[str]) -> dict[CellKey, int]:
        """How many good runs every cell of these builds has: a store has hundreds of others."""
        ask = "SELECT target, build, model, scenario, ok_runs FROM cells WHERE build = ?"
        found = (row for build in set(builds) for row in self._db.execute(ask, (build,)))
        return {CellKey(*row[:4]): row[4] for row in found}

    def score(self, run_id: int, score: float) -> bool:
        """Note a person's judgement of a capability probe; False when that run is none."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE runs SET score = ? WHERE id = ? AND scenario LIKE 'capability:%'",
                (score, run_id),
            )
            row = self._db.execute(
                "SELECT target, build, model, scenario FROM runs WHERE id = ?", (run_id,)
            ).fetchone()
            if row is not None:
                self._renew_cell(CellKey(*row))
        return done.rowcount > 0

    def rebuild_cells(self) -> None:
        """Sum every cell up anew."""
        with self._transaction():
            for table in ("cells", "lines", "builds"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own
            self._sum_up()

    def _sum_up(self) -> None:
        keys = self._db.execute(
            "SELECT DISTINCT target, build, model, scenario FROM runs"
        ).fetchall()
        for key in keys:
            self._renew_cell(CellKey(*key))

    def runs(self) -> Iterator[Run]:
        """Every run, oldest first."""
        try:
            for row in self._db.execute("SELECT * FROM runs ORDER BY id"):
                yield from_row(row)
        except sqlite3.DatabaseError as error:
            raise unusable(self.path, error) from error

    def forget_runs(self, keep: int) -> int:
        """Leave only the runs of every line's newest ``keep`` builds; returns how many went.

        The cells stay, with the samples that trends, comparisons and verdicts rest on. What stays
        is written anew: taking a million rows out of eight indexes would write each page of them a
        hundred times.

        Raises:
            StoreError: There is no room for what stays, or somebody else is writing.
        """
        table, *indexes = FIRST_TABLES
        # Some systems' SQLite writes zeros over all that is deleted.
        self._db.execute("PRAGMA secure_delete = OFF")
        with self._transaction():
            count = self._db.execute("SELECT count(*) FROM runs").fetchone()[0]
            for name in self._db.execute(_INDEXES).fetchall():
                if name[0] != "runs_by_cell":  # by which what stays is found
                    self._db.execute(f"DROP INDEX {name[0]}")
            self._db.execute("ALTER TABLE runs RENAME TO runs_before")
            self._db.execute(table)
            stayed = self._db.execute(_NEWEST, (keep,)).rowcount
            self._db.execute("DROP TABLE runs_before")  # its index goes with it
            for index in indexes:
                self._db.execute(index)
        return int(count) - stayed

    def compact(self) -> None:
        """Give the room of what was deleted back to the disk; takes as much of it meanwhile.

        Raises:
            StoreError: There is not so much, or somebody else is writing.
        """
        try:
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            raise unusable(self.path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise unusable(self.path, error) from error

    def _renew_cell(self, key: CellKey) -> None:
        where = (key.target, key.model, key.scenario, key.build)
        counted = self._db.execute(
            "SELECT min(at), max(at), sum(ok), sum(1 - ok), max(concurrency) FROM runs "
            "WHERE target = ? AND model = ? AND scenario = ? AND build = ?",
            where,
        ).fetchone()
        newest = self._db.execute(
            "SELECT * FROM runs WHERE target = ? AND model = ? AND scenario = ? AND build = ? "
            "AND ok = 1 ORDER BY at DESC LIMIT ?",
            (*where, KEPT_SAMPLES),
        ).fetchall()
        shown = newest or self._db.execute(
            "SELECT * FROM runs WHERE target = ? AND model = ? AND scenario = ? AND build = ? "
            "ORDER BY at DESC LIMIT ?",
            (*where, KEPT_SAMPLES),
        ).fetchall()  # fmt: skip
        values = {name: samples_of(name, newest) for name in METRICS}
        self._db.execute(
            "INSERT OR REPLACE INTO cells VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *where,
                *(shown[0][name] for name in ("kind", "label", "host", "gpus", "engine", "quant")),
                *counted,
                sum(row["refused"] for row in shown),
                sum(row["requests"] for row in shown),
                msgspec.json.encode({k: v for k, v in values.items() if v}).decode(),
            ),
        )
        self._db.execute("INSERT OR IGNORE INTO lines VALUES (?, ?, ?)", where[:3])
        self._db.execute(
            "INSERT INTO builds VALUES (?, ?) "
            "ON CONFLICT (build) DO UPDATE SET last_at = max(last_at, excluded.last_at)",
            (key.build, counted[1]),
        )


def cell_key(run: Run) -> CellKey:
    """The cell that a run belongs to."""
    return CellKey(run.source.target, run.source.build, run.model.model, run.scenario)


def to_row(run: Run) -> dict[str, Any]:
    """Column by column."""
    row: dict[str, Any] = {"at": run.at, "scenario": run.scenario, "score": run.score}
    row["key"] = run.key or f"{run.at!r}:{run.source.target}:{run.model.model}:{run.scenario}"
    for part in (run.source, run.model, run.result):
        row |= msgspec.structs.asdict(part)
    for when, state in (("before", run.before), ("after", run.after)):
        for name, column in _STATE_FIELDS.items():
            row[column.format(when)] = getattr(state, name)
    row["git_dirty"], row["ok"] = int(run.source.git_dirty), int(run.result.ok)
    return row


def from_row(row: Mapping[str, Any] | sqlite3.Row) -> Run:
    """The run of a row."""

    def part(kind: type[Any]) -> Any:
        return kind(**{name: row[name] for name in kind.__struct_fields__})

    states = {
        when: kind(*(row[column.format(when)] for column in _STATE_FIELDS.values()))
        for when, kind in _STATES
    }
    source, result = part(Provenance), part(Result)
    return Run(
        at=row["at"],
        scenario=row["scenario"],
        # SQLite has no booleans.
        source=msgspec.structs.replace(source, git_dirty=bool(source.git_dirty)),
        model=part(ModelFacts),
        result=msgspec.structs.replace(result, ok=bool(result.ok)),
        key=row["key"],
        score=row["score"],
        id=row["id"],
        **states,
    )
