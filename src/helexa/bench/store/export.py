"""Every run as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from helexa.bench.row import Run
from helexa.bench.store.schema import RUN_COLUMNS, StoreError
from helexa.bench.store.store import to_row

_BATCH = 10_000
_ARROW = {"TEXT": "string", "INTEGER": "int64", "REAL": "float64"}


def to_csv(runs: Iterable[Run], out: TextIO) -> int:
    """Write runs with a header line; returns how many."""
    writer = csv.DictWriter(out, fieldnames=list(RUN_COLUMNS))
    writer.writeheader()
    count = 0
    for run in runs:
        writer.writerow(to_row(run))
        count += 1
    return count


def to_parquet(runs: Iterable[Run], path: Path) -> int:
    """Write runs in batches; returns how many.

    Raises:
        StoreError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  # 40 MB that only this needs
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise StoreError(
            "Parquet needs pyarrow; run: pip install 'helexa[bench]', or export CSV"
        ) from None
    schema = pa.schema([(n, _ARROW[kind.split()[0]]) for n, kind in RUN_COLUMNS.items()])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _batches(runs):
            columns = {name: [row[name] for row in batch] for name in RUN_COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(batch)
    return count


def _batches(runs: Iterable[Run]) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for run in runs:
        batch.append(to_row(run))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
