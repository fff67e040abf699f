"""``helexa bench``: measure builds, keep what was measured, show it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helexa.cli.bench_kept import export_command, score_command, thin_command
from helexa.cli.bench_options import (
    config_file,
    database,
    guarded,
    leave,
    loaded_of,
    settings_of,
)
from helexa.cli.options import (
    json_option,
    log_level_option,
    port_option,
    version_option,
)

if TYPE_CHECKING:
    from helexa.bench.settings import BenchSettings
    from helexa.core.settings import Loaded

REGRESSED = 1


@click.group(name="bench", context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def bench_group() -> None:
    """Measure every build, keep every run, show what changed.

    Name what to measure in a settings file, start with `helexa bench once`, then
    `helexa bench serve` and open the page. `helexa bench probe URL` needs no file.
    """


for command in (export_command, score_command, thin_command):
    bench_group.add_command(command)


@bench_group.command("run")
@config_file
@database
@port_option(13132)
@log_level_option
@version_option
def run_command(config: Path | None, db: Path | None, port: int | None, log_level: str) -> None:
    """Sweep continuously, and serve the API and the pages.

    Prints one line of JSON to stdout once it serves; progress and logs go to stderr.
    """
    _serve(config, db, port, log_level, sweep=True)


@bench_group.command("serve")
@config_file
@database
@port_option(13132)
@log_level_option
@version_option
def serve_command(config: Path | None, db: Path | None, port: int | None, log_level: str) -> None:
    """Serve the API and the pages, without measuring."""
    _serve(config, db, port, log_level, sweep=False)


@bench_group.command("once")
@config_file
@database
@json_option
@version_option
def once_command(config: Path | None, db: Path | None, as_json: bool) -> None:
    """Make the runs that are due, then stop.

    Exit status 1 when a target was down, lacked a model that the settings name, or a run failed;
    3 when another sweep into the same store is under way.
    """
    import asyncio

    from helexa.bench import build
    from helexa.bench.sweep.alone import SweepUnderWay
    from helexa.bench.sweep.progress import progress

    settings = settings_of(config, db)
    try:
        outcome = guarded(
            lambda: asyncio.run(build.once(settings, os.environ, progress(sys.stderr), _version()))
        )
    except SweepUnderWay as error:
        leave(3, str(error))
    if outcome is None:
        raise SystemExit(128 + signal.SIGTERM)
    words = {
        "stored": outcome.stored,
        "failed": outcome.failed,
        "put_off": outcome.put_off,
        "down": outcome.down,
        "missing": outcome.missing,
    }
    text = (
        f"{outcome.stored} runs stored, {outcome.failed} failed, {outcome.put_off} put off; "
        f"{settings.database(os.environ)}"
    )
    click.echo(json.dumps(words) if as_json else text)
    raise SystemExit(1 if outcome.failed or outcome.down or outcome.missing else 0)


@bench_group.command("report")
@config_file
@database
@click.option(
    "--format", "shape", type=click.Choice(["md", "json", "html"]), default="md", show_default=True
)
@click.option("--show-hosts", is_flag=True, help="Name machines, not only their hardware.")
@version_option
def report_command(config: Path | None, db: Path | None, shape: str, show_hosts: bool) -> None:
    """Print the newest figures of everything, and what has changed."""
    from helexa.bench import build
    from helexa.bench.report import text

    path = settings_of(config, db).database(os.environ)
    made = guarded(lambda: build.report(path, show_host=show_hosts))
    render = {"md": text.to_markdown, "json": text.to_json, "html": text.to_html}[shape]
    click.echo(render(made), nl=False)


@bench_group.command("compare")
@click.argument("a")
@click.argument("b")
@config_file
@database
@click.option("--metric", help="Another metric than each scenario's own.")
@json_option
@version_option
def compare_command(
    a: str, b: str, config: Path | None, db: Path | None, metric: str | None, as_json: bool
) -> None:
    """Compare two builds (or two targets), B against A, cell by cell.

    Exit status 1 when a cell has become slower or every run of it fails now, 2 when there is
    nothing to compare.
    """
    import msgspec

    from helexa.bench.report import answers
    from helexa.bench.report.text import verdict_line
    from helexa.bench.stats.verdict import WORSE
    from helexa.bench.store.cell import METRICS
    from helexa.bench.store.reader import Reader

    if metric is not None and metric not in METRICS:
        leave(2, f"there is no metric {metric!r}; one of {', '.join(METRICS)}")
    path = settings_of(config, db).database(os.environ)
    old, new = guarded(lambda: answers.sides(Reader(path), a, b))
    verdicts, alone = answers.compare(old, new, metric)
    if not verdicts:
        leave(2, f"{a!r} and {b!r} have no cell in common; see `helexa bench report`")
    if as_json:
        click.echo(msgspec.json.encode({"cells": verdicts, "alone": alone}).decode())
    else:
        for verdict in verdicts:
            click.echo(f"{verdict.word:<7} {verdict_line(verdict)}")
        if alone:
            click.echo(f"{len(alone)} cells are on one side only and were left out", err=True)
    raise SystemExit(REGRESSED if any(v.word in WORSE for v in verdicts) else 0)


@bench_group.command("swap-cost")
@config_file
@database
@json_option
@version_option
def swap_cost_command(config: Path | None, db: Path | None, as_json: bool) -> None:
    """Print what loading costs: cold starts and swaps, newest build."""
    import msgspec

    from helexa.bench.report import answers
    from helexa.bench.store.reader import Reader

    path = settings_of(config, db).database(os.environ)
    newest = answers.judged(guarded(lambda: Reader(path).newest_cells()))
    loads = [cell for cell in newest.cells if cell.scenario in answers.LOADS]
    found = answers.summary(newest, loads)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    if not found:
        click.echo("no cold or swap runs yet: add them to [scenarios] names", err=True)
    for cell in found:
        load = cell.metrics.get("load_ms")
        first = cell.metrics.get("first_token_ms")
        shown = "no good run" if load is None else f"{load.median / 1000:.2f} s to load"
        answer = "" if first is None else f", {first.median:.0f} ms to the first token"
        click.echo(f"{cell.target}  {cell.model}  {cell.scenario}: {shown}{answer}")


@bench_group.command("probe")
@click.argument("url")
@click.option("--model", help="Default: the first one it lists.")
@click.option("--key", envvar="HELEXA_KEY", show_envvar=True, help="API key to ask with.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option("--streams", type=click.IntRange(1, 4096), default=1, show_default=True)
@json_option
@version_option
def probe_command(
    url: str,
    model: str | None,
    key: str | None,
    prompt_tokens: int,
    max_tokens: int,
    streams: int,
    as_json: bool,
) -> None:
    """Measure any OpenAI-compatible endpoint once; nothing is stored."""
    import asyncio

    import msgspec

    from helexa.bench.once import probe
    from helexa.bench.sweep.progress import outcome
    from helexa.bench.targets.base import TargetDown
    from helexa.core.settings import as_header

    usable = guarded(lambda: None if key is None else as_header(key))
    try:
        result = asyncio.run(
            probe(url, usable, model, prompt=prompt_tokens, cap=max_tokens, streams=streams)
        )
    except ValueError as error:
        leave(2, str(error))
    except TargetDown as error:
        leave(3, str(error))
    click.echo(msgspec.json.encode(result).decode() if as_json else outcome(result))
    raise SystemExit(0 if result.ok else 1)


def _serve(
    config: Path | None, db: Path | None, port: int | None, log_level: str, *, sweep: bool
) -> None:
    from helexa.cli import serve

    def load() -> Loaded[BenchSettings]:
        return loaded_of(config, db, port)

    def binds(settings: BenchSettings) -> list[Any]:
        host, _, number = settings.api.listen.rpartition(":")
        return [serve.Bind(host.strip("[]"), int(number), "--port")]

    def run(
        settings: BenchSettings, announce: Callable[[dict[str, object]], None]
    ) -> Coroutine[Any, Any, None]:
        from helexa.bench.build import run
        from helexa.bench.sweep.progress import progress

        return run(
            settings,
            os.environ,
            announce=announce,
            version=_version(),
            progress=progress(sys.stderr) if sweep else None,
        )

    serve.serve(serve.Application("bench", load, binds, run), log_level)


def _version() -> str:
    from helexa.core import build_info

    return build_info.load(os.environ).one_line()
