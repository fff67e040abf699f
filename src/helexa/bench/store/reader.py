"""Reading: one connection per thread, none of which ever holds the writer up."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from helexa.bench.row import Run, in_order
from helexa.bench.store.cell import Cell, primary_of
from helexa.bench.store.schema import MIGRATIONS, RUN_COLUMNS, StoreError, unusable
from helexa.bench.store.store import connect, from_row

MOST_ROWS = 1000
NEWEST = 2000
"""Runs that a question looks at; older ones are found by narrowing it."""

_NOT_BESIDE = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
)
"""What SQLite answers who cannot make its files beside the database, since it may not or the disk
is full; reading needs them too."""


_BEFORE = """
SELECT old FROM (
  SELECT (
    SELECT build FROM cells AS o
    WHERE o.target = c.target AND o.model = c.model AND o.scenario = c.scenario
      AND o.first_at < c.first_at
    ORDER BY o.first_at DESC LIMIT 1
  ) AS old
  FROM cells AS c WHERE c.build = :build
) WHERE old IS NOT NULL LIMIT 1
"""
"""The build that was measured before this one somewhere."""

_floats = msgspec.json.Decoder(list[float]).decode


class Lines(msgspec.Struct, frozen=True):
    """Which lines of cells are wanted; empty members ask for all."""

    target: str = ""
    model: str = ""
    scenario: str = ""

    def takes(self, target: str, model: str, scenario: str) -> bool:
        """Whether that line is wanted."""
        return (
            self.target in ("", target)
            and self.model in ("", model)
            and self.scenario in ("", scenario)
        )


ALL = Lines()


class RunFilter(msgspec.Struct, frozen=True):
    """Which runs are wanted; empty members ask for nothing."""

    target: str = ""
    model: str = ""
    scenario: str = ""
    build: str = ""
    ok: bool | None = None
    since: float | None = None


class Reader:
    """Answers questions about a store.

    Args:
        path: Must exist.

    Raises:
        StoreError: There is none, or it is not ours.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise StoreError(
                f"{path}: there is no bench database yet; run `helexa bench once` first"
            )
        self._path = path
        self._local = threading.local()
        have = self._ask("PRAGMA user_version")[0][0]
        if have != len(MIGRATIONS):
            raise StoreError(
                f"{path}: has schema {have}, this helexa reads {len(MIGRATIONS)}; "
                + ("upgrade helexa" if have > len(MIGRATIONS) else "run `helexa bench once` once")
            )

    def dimensions(self) -> dict[str, list[str]]:
        """Every target, model and scenario there is; builds newest first."""
        found = {
            name: [row[0] for row in self._ask(f"SELECT DISTINCT {name} FROM lines ORDER BY 1")]  # noqa: S608
            for name in ("target", "model", "scenario")
        }
        builds = self._ask("SELECT build FROM builds ORDER BY last_at DESC LIMIT ?", (MOST_ROWS,))
        found["build"] = [row[0] for row in builds]
        found["scenario"].sort(key=in_order)
        return found

    def updated(self) -> tuple[str, str] | None:
        """The last update that was measured: the build before it, and the new one.

        None while no line has two builds among the newest.
        """
        for (new,) in self._ask("SELECT build FROM builds ORDER BY last_at DESC LIMIT 10"):
            rows = self._ask(_BEFORE, {"build": new})
            if rows:
                return rows[0]["old"], new
        return None

    def build_cells(self, build: str) -> list[Cell]:
        """Every cell of one build."""
        rows = self._ask(
            "SELECT * FROM cells WHERE build = ? ORDER BY target, model, scenario", (build,)
        )
        return [Cell.of(row) for row in sorted(rows, key=_place)]

    def latest_cells(self, lines: Lines = ALL, depth: int = 2) -> list[Cell]:
        """Of every target, model and scenario the newest ``depth`` builds, oldest first."""
        given = {name: value for name, value in msgspec.structs.asdict(lines).items() if value}
        clause = " AND ".join(f"{name} = :{name}" for name in given) or "1"
        keys = self._ask(f"SELECT target, model, scenario FROM lines WHERE {clause}", given)  # noqa: S608
        found: list[Cell] = []
        for key in sorted(keys, key=_place):
            rows = self._ask(
                "SELECT * FROM cells WHERE target = ? AND model = ? AND scenario = ? "
                "ORDER BY first_at DESC LIMIT ?",
                (*key, depth),
            )
            found += [Cell.of(row) for row in reversed(rows)]
        return found

    def newest_cells(self, lines: Lines = ALL) -> list[Cell]:
        """Of every target, model and scenario the newest build, behind the one to compare it with.

        That is the last one before it with a good run: nothing can be compared with a build that
        did not work, and what it broke, or hid, would be forgotten with the next one.
        """
        found: list[Cell] = []
        for cell in self.latest_cells(lines, 2):
            before = found[-1] if found and found[-1].line == cell.line else None
            if before is not None and not before.ok_runs:
                found[-1] = self._last_good(before) or before
            found.append(cell)
        return found

    def _last_good(self, cell: Cell) -> Cell | None:
        """The same with the last build before this one that had a good run of it."""
        rows = self._ask(
            "SELECT * FROM cells WHERE target = ? AND model = ? AND scenario = ? "
            "AND first_at < ? AND ok_runs > 0 ORDER BY first_at DESC LIMIT 1",
            (*cell.line, cell.first_at),
        )
        return Cell.of(rows[0]) if rows else None

    def primary_samples(self, depth: int) -> list[tuple[Lines, list[list[float]]]]:
        """Of every line of cells: its primary metric's samples, build by build, oldest first.

        A build's list is empty where every run of it failed. Nothing else is decoded: a page asks
        for all lines at once, and draws each in a small place.
        """
        found = []
        for line in self._lines():
            key = msgspec.structs.astuple(line)
            rows = self._ask(
                "SELECT json_extract(samples, ?) AS samples FROM cells "
                "WHERE target = ? AND model = ? AND scenario = ? ORDER BY first_at DESC LIMIT ?",
                (f"$.{primary_of(line.scenario)}", *key, depth),
            )
            found.append((line, [_floats(row["samples"] or b"[]") for row in reversed(rows)]))
        return found

    def _lines(self) -> list[Lines]:
        keys = self._ask("SELECT target, model, scenario FROM lines")
        return [Lines(*key) for key in sorted(keys, key=_place)]

    def runs(
        self,
        where: RunFilter,
        *,
        sort: str = "at",
        descending: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[int, list[Run]]:
        """How many runs there are, up to ``NEWEST``, and a page of them.

        Only the newest ``NEWEST`` that fit are counted and sorted: nobody pages further, and it
        bounds what an answer costs.
        """
        clause, values = _clause(where)
        by = sort if sort in RUN_COLUMNS else "at"
        order = "DESC" if descending else "ASC"
        newest = (
            f"SELECT id, {by} AS sorted FROM runs WHERE {clause} ORDER BY at DESC LIMIT {NEWEST}"  # noqa: S608
        )
        placed = f"sorted IS NULL, sorted {order}, id {order}"  # without a figure: last, either way
        ids = self._ask(f"SELECT id FROM ({newest}) ORDER BY {placed}", values)  # noqa: S608
        page = [row[0] for row in ids[offset : offset + min(limit, MOST_ROWS)]]
        marks = ", ".join("?" * len(page))
        rows = self._ask(f"SELECT * FROM runs WHERE id IN ({marks})", page)  # noqa: S608
        count = len(ids)
        rows = sorted(rows, key=lambda row: page.index(row["id"]))
        return count, [from_row(row) for row in rows]

    def run(self, run_id: int) -> Run | None:
        """One run, whole."""
        rows = self._ask("SELECT * FROM runs WHERE id = ?", (run_id,))
        return from_row(rows[0]) if rows else None

    def state(self) -> object:
        """Differs once something was written: what is newest stands in the log beside the file."""
        found: list[tuple[int, int, int]] = []
        for file in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def last_at(self) -> float | None:
        """Epoch seconds of the newest run."""
        last: float | None = self._ask("SELECT max(at) FROM runs")[0][0]
        return last

    def every_run(self) -> Iterator[tuple[Any, ...]]:
        """Every run as it is stored, oldest first, in the order of ``RUN_COLUMNS``."""
        immutable = not self._writable_beside()
        query = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs ORDER BY id"  # noqa: S608
        try:
            with contextlib.closing(connect(self._path, readonly=True, immutable=immutable)) as db:
                db.row_factory = None
                yield from db.execute(query)
        except sqlite3.DatabaseError as error:
            raise unusable(self._path, error) from error

    def _writable_beside(self) -> bool:
        """Whether SQLite can read it as a file that others may write to."""
        try:
            with contextlib.closing(connect(self._path, readonly=True)) as db:
                db.execute("SELECT 1 FROM runs LIMIT 1").fetchall()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _NOT_BESIDE and self._at_rest():
                return False
            raise unusable(self._path, error) from error
        return True

    def _ask(self, query: str, values: Any = ()) -> Sequence[sqlite3.Row]:
        held = getattr(self._local, "held", None)
        try:
            if held is None:
                held = self._local.held = _Held(connect(self._path, readonly=True))
            rows: list[sqlite3.Row] = held.db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _NOT_BESIDE and self._at_rest():
                return self._ask_at_rest(query, values)
            raise unusable(self._path, error) from error
        return rows

    def _at_rest(self) -> bool:
        """Nothing of it is outside of the file; SQLite may have made an empty log in vain."""
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size == 0
        except FileNotFoundError:
            return True

    def _ask_at_rest(self, query: str, values: Any) -> Sequence[sqlite3.Row]:
        """Where this user may not write beside the file, while nobody else has it open.

        Only for this one question: who opens it next may write.
        """
        try:
            with contextlib.closing(connect(self._path, readonly=True, immutable=True)) as db:
                rows: list[sqlite3.Row] = db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise unusable(self._path, error) from error
        return rows


class _Held:
    """A thread's connection, closed when the thread or its reader ends: neither is told of the
    other's end, and Python 3.13 warns of a connection that nobody has closed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()


def _place(row: sqlite3.Row) -> tuple[str, str, tuple[str, float, str]]:
    return row["target"], row["model"], in_order(row["scenario"])


def _clause(where: RunFilter) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {
        name: getattr(where, name)
        for name in ("target", "model", "scenario", "build")
        if getattr(where, name)
    }
    parts = [f"{name} = :{name}" for name in values]
    if where.ok is not None:
        parts.append(f"ok = {int(where.ok)}")  # a literal, so that the index of failures is used
    if where.since is not None:
        parts.append("at >= :since")
        values["since"] = where.since
    return " AND ".join(parts) or "1", values
