"""Every run as CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from helexa.bench.store.schema import RUN_COLUMNS, StoreError

_BATCH = 10_000
_ARROW = {"TEXT": "string", "INTEGER": "int64", "REAL": "float64"}


Row = tuple[Any, ...]
"""A run in the order of ``RUN_COLUMNS``."""


def to_csv(runs: Iterable[Row], out: TextIO) -> int:
    """Write runs with a header line; returns how many."""
    writer = csv.writer(out)
    writer.writerow(RUN_COLUMNS)
    count = 0
    for batch in _batches(runs):
        writer.writerows(batch)
        count += len(batch)
    return count


def to_parquet(runs: Iterable[Row], path: Path) -> int:
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
            columns = dict(zip(RUN_COLUMNS, zip(*batch, strict=True), strict=True))
            writer.write_table(pa.table(columns, schema=schema))
            count += len(batch)
    return count


def _batches(runs: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(runs)
    while batch := list(itertools.islice(left, _BATCH)):
        yield batch
