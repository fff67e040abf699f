"""Tables and their migrations.

``user_version`` counts the migrations that a file has had. A newer file than this program knows
is refused; an older one is brought up in one transaction, so a crash leaves it as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from helexa.core.settings import SettingsError

RUN_COLUMNS: dict[str, str] = {
    "key": "TEXT NOT NULL UNIQUE",
    "at": "REAL NOT NULL",
    "scenario": "TEXT NOT NULL",
    "target": "TEXT NOT NULL",
    "kind": "TEXT NOT NULL",
    "endpoint": "TEXT NOT NULL",
    "build": "TEXT NOT NULL",
    "label": "TEXT NOT NULL",
    "host": "TEXT NOT NULL",
    "driver_version": "TEXT NOT NULL",
    "cuda_version": "TEXT NOT NULL",
    "gpus": "TEXT NOT NULL",
    "git_sha": "TEXT NOT NULL",
    "git_dirty": "INTEGER NOT NULL",
    "package_version": "TEXT NOT NULL",
    "build_time": "TEXT NOT NULL",
    "engine_versions": "TEXT NOT NULL",
    "bench_version": "TEXT NOT NULL",
    "model": "TEXT NOT NULL",
    "quant": "TEXT NOT NULL",
    "engine": "TEXT NOT NULL",
    "capabilities": "TEXT NOT NULL",
    "devices": "TEXT NOT NULL",
    "ok": "INTEGER NOT NULL",
    "error": "TEXT NOT NULL",
    "prompt_asked": "INTEGER NOT NULL",
    "prompt_tokens": "INTEGER",
    "output_cap": "INTEGER NOT NULL",
    "output_tokens": "INTEGER",
    "cached_tokens": "INTEGER",
    "first_token_ms": "REAL",
    "decode_rate": "REAL",
    "total_ms": "REAL",
    "inter_token_p50_ms": "REAL",
    "inter_token_p99_ms": "REAL",
    "concurrency": "INTEGER NOT NULL",
    "requests": "INTEGER NOT NULL",
    "refused": "INTEGER NOT NULL",
    "failed": "INTEGER NOT NULL",
    "throughput": "REAL",
    "queue_ms": "REAL",
    "goodput": "REAL",
    "load_ms": "REAL",
    "first_token_p95_ms": "REAL",
    "artifact": "TEXT NOT NULL",
    "memory_before_mb": "INTEGER",
    "utilization_before_pct": "REAL",
    "temp_before_c": "REAL",
    "memory_after_mb": "INTEGER",
    "utilization_after_pct": "REAL",
    "temp_after_c": "REAL",
    "score": "REAL",
}

_RUNS = ",\n  ".join(f"{name} {kind}" for name, kind in RUN_COLUMNS.items())

_FIRST = f"""
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  {_RUNS}
);
CREATE INDEX runs_by_cell ON runs (target, model, scenario, build, ok, at);
CREATE INDEX runs_by_time ON runs (at);
CREATE INDEX runs_by_target ON runs (target, at);
CREATE INDEX runs_by_model ON runs (model, at);
CREATE INDEX runs_by_scenario ON runs (scenario, at);
CREATE INDEX runs_by_build ON runs (build, at);
CREATE INDEX runs_failed ON runs (at) WHERE ok = 0;
"""

FIRST_TABLES: tuple[str, ...] = tuple(filter(str.strip, _FIRST.split(";\n")))
"""``runs``, then its indexes."""

_CELLS = """
CREATE TABLE cells (
  target TEXT NOT NULL,
  model TEXT NOT NULL,
  scenario TEXT NOT NULL,
  build TEXT NOT NULL,
  kind TEXT NOT NULL,
  label TEXT NOT NULL,
  host TEXT NOT NULL,
  gpus TEXT NOT NULL,
  engine TEXT NOT NULL,
  quant TEXT NOT NULL,
  first_at REAL NOT NULL,
  last_at REAL NOT NULL,
  ok_runs INTEGER NOT NULL,
  failed_runs INTEGER NOT NULL,
  concurrency INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  samples TEXT NOT NULL,
  PRIMARY KEY (target, model, scenario, build)
) WITHOUT ROWID;
CREATE INDEX cells_latest ON cells (target, model, scenario, first_at);
CREATE INDEX cells_by_build ON cells (build);
CREATE TABLE builds (
  build TEXT PRIMARY KEY,
  last_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE lines (
  target TEXT NOT NULL,
  model TEXT NOT NULL,
  scenario TEXT NOT NULL,
  PRIMARY KEY (target, model, scenario)
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _CELLS)
"""Appended to, never edited."""


class StoreError(SettingsError):
    """A database that cannot be used; the message says why and what to do."""


SUMMED_UP_SINCE = 2
"""The version whose ``cells`` sum up what ``runs`` had before."""


def migrate(db: sqlite3.Connection, path: Path, sum_up: Callable[[], None]) -> None:
    """Bring the file to the newest schema.

    Args:
        db: In autocommit mode.
        sum_up: Fills ``cells`` from ``runs``; called within the transaction, because a file that
            was left without its cells would look up to date, and empty.

    Raises:
        StoreError: It is of a newer program, or no database of ours.
    """
    try:
        db.execute("BEGIN IMMEDIATE")  # two programs that start at once migrate once
        try:
            have: int = db.execute("PRAGMA user_version").fetchone()[0]
            _refuse_newer(have, path)
            for step in range(have, len(MIGRATIONS)):
                for statement in MIGRATIONS[step].split(";\n"):
                    db.execute(statement)
            if 0 < have < SUMMED_UP_SINCE:
                sum_up()
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        except BaseException:
            if db.in_transaction:  # SQLite may have rolled back by itself
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        raise unusable(path, error) from error


def _refuse_newer(have: int, path: Path) -> None:
    if have > len(MIGRATIONS):
        raise StoreError(
            f"{path}: written by a newer helexa (schema {have}, this one knows "
            f"{len(MIGRATIONS)}); upgrade helexa or name another file with bench.db_path"
        )


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """The words for what SQLite could not do with a file."""
    text = str(error)
    if "full" in text:
        return StoreError(f"{path}: the disk is full; free some space")
    if "I/O" in text:
        return StoreError(f"{path}: the disk does not do it ({text}): is it full, or failing?")
    if "locked" in text:
        return StoreError(f"{path}: another program holds it; stop that or name another file")
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            f"{path}: this user may not write it or beside it, which is needed while another "
            "program has it open; run this as that program's user"
        )
    return StoreError(
        f"{path}: is not a bench database, or it is damaged ({text}); restore a backup or move "
        "the file away"
    )
