"""Bodies of the API that are not answers of ``report`` already."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from helexa.bench.row import CellKey, Run
from helexa.bench.stats.verdict import Verdict


class HealthAnswer(msgspec.Struct, frozen=True):
    """``status`` is ``ok`` or ``no data``, with why; ``last_run_at`` in epoch seconds."""

    status: str
    version: str
    last_run_at: float | None
    detail: str = ""


class Dimensions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that can be asked for; builds newest first.

    ``updated`` is the last update that was measured: the build before it, and the new one.
    """

    target: list[str]
    model: list[str]
    scenario: list[str]
    build: list[str]
    metrics: list[str]
    updated: tuple[str, str] | None = None


class Page(msgspec.Struct, frozen=True):
    """Some runs, and how many there are."""

    count: int
    runs: list[Run]


class Compared(msgspec.Struct, frozen=True):
    """``b`` against ``a``, and the cells that only one of them has."""

    a: str
    b: str
    cells: list[Verdict]
    alone: list[CellKey]


def shown(run: Run, *, show_host: bool) -> Run:
    """Without what names a machine, unless the operator wants it shown."""
    if show_host:
        return run
    error = run.result.error
    for name in (run.source.endpoint, urlsplit(run.source.endpoint).netloc, run.source.host):
        if name:
            error = error.replace(name, run.source.target)
    return msgspec.structs.replace(
        run,
        source=msgspec.structs.replace(run.source, host="", endpoint=""),
        result=msgspec.structs.replace(run.result, error=error),
    )
