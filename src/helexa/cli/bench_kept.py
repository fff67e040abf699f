"""``helexa bench score``, ``export`` and ``thin``: what is done with runs that are kept."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import click

from helexa.cli.bench_options import config_file, database, guarded, leave, settings_of
from helexa.cli.options import json_option, version_option


@click.command("score")
@click.argument("run_id", type=click.IntRange(0, 2**63 - 1), required=False)
@click.argument("score", type=float, required=False)
@config_file
@database
@version_option
def score_command(
    run_id: int | None, score: float | None, config: Path | None, db: Path | None
) -> None:
    """Give the answer of a capability probe a score; without arguments, list those without one."""
    from helexa.bench.store.reader import Reader
    from helexa.bench.store.store import Store

    path = settings_of(config, db).database(os.environ)
    if run_id is None:
        reader = guarded(lambda: Reader(path))
        for run in _unscored(reader):
            click.echo(f"── run {run.id}: {run.source.target} {run.model.model} {run.scenario}")
            click.echo(run.result.artifact)
        return
    if score is None:
        leave(2, "give a run and its score: helexa bench score RUN SCORE")
    if not math.isfinite(score):
        leave(2, f"{score} is not a score: give a number")
    store = guarded(lambda: Store(path))
    found = guarded(lambda: store.score(run_id, score))
    store.close()
    if not found:
        leave(2, f"run {run_id} is not the answer of a probe; `helexa bench score` lists those")


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@config_file
@database
@version_option
def export_command(file: Path, config: Path | None, db: Path | None) -> None:
    """Write every run to FILE: .csv or .parquet; - is CSV on stdout."""
    from helexa.bench.store.export import to_csv, to_parquet
    from helexa.bench.store.reader import Reader

    path = settings_of(config, db).database(os.environ)
    reader = guarded(lambda: Reader(path))
    if str(file) != "-" and file.suffix not in (".csv", ".parquet"):
        leave(2, f"{file}: name it .csv or .parquet")

    def write() -> int:
        if str(file) == "-":
            return to_csv(reader.every_run(), sys.stdout)
        if file.suffix == ".parquet":
            return to_parquet(reader.every_run(), file)
        with file.open("w", newline="", encoding="utf-8") as out:
            return to_csv(reader.every_run(), out)

    try:
        count = guarded(write)
    except BrokenPipeError:
        raise
    except OSError as error:
        leave(2, f"{file} cannot be written: {error.strerror or error}")
    if str(file) != "-":
        click.echo(f"{count} runs written to {file}")


@click.command("thin")
@click.option(
    "--keep", type=click.IntRange(1), required=True, help="Newest builds whose runs stay."
)
@click.option(
    "--compact", is_flag=True, help="Give the room back to the disk, which takes as much meanwhile."
)
@config_file
@database
@json_option
@version_option
def thin_command(
    keep: int, config: Path | None, db: Path | None, *, compact: bool, as_json: bool
) -> None:
    """Delete the runs of old builds; their trends and comparisons stay.

    Of every target, model and scenario the newest builds (--keep) stay whole. Of older ones stay
    the figures, and go the rows: readings, errors, answers to capability probes. Without --compact
    the file keeps its size, and new runs fill the room. Exit status 3 while a sweep is under way.
    """
    from helexa.bench.store.reader import Reader
    from helexa.bench.store.store import Store
    from helexa.bench.sweep.alone import SweepUnderWay, alone

    path = settings_of(config, db).database(os.environ)
    guarded(lambda: Reader(path))  # which does not make one
    store = guarded(lambda: Store(path))
    try:
        with alone(path):
            click.echo("writing anew what stays; this reads the whole file", err=True)
            count = guarded(lambda: store.forget_runs(keep))
            if compact:
                guarded(store.compact)
    except SweepUnderWay as error:
        leave(3, str(error))
    finally:
        store.close()
    size = path.stat().st_size
    text = f"{count:,} runs deleted; {path} has {size / 1e6:,.0f} MB"
    click.echo(json.dumps({"deleted": count, "bytes": size}) if as_json else text)


def _unscored(reader: Any) -> list[Any]:
    from helexa.bench.store.reader import RunFilter

    names = [s for s in reader.dimensions()["scenario"] if s.startswith("capability:")]
    runs = [run for name in names for run in reader.runs(RunFilter(scenario=name, ok=True))[1]]
    return [run for run in runs if run.score is None]
