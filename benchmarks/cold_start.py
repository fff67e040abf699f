"""Eight clients ask for a model that is not loaded, all at once; again and again.

How many loads they cause, how many are answered, and how true the estimate is that somebody who
asks at the same moment, and cannot wait, is refused with.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import click
import uvloop
from kit import report
from kit.chat import ask, body
from kit.process import Failed
from kit.swap import Swap

CLIENTS = 8
LEARNING = 3
"""Loads after which estimates are held to the bar."""


class Round(NamedTuple):
    """One cold start; seconds.

    Args:
        eta_s: As told at the start; None when nobody could know.
        truth_s: Until the first client's first token.
        longest_s: Until the last client's.
    """

    loads: int
    answered: int
    eta_s: float | None
    truth_s: float
    longest_s: float


async def cold_start(swap: Swap, model: str) -> Round:
    """Ask, with one client among them who cannot wait."""
    before = len(swap.events("model loaded"))
    payload = body(model, "Say something.", 4)
    began = time.perf_counter()
    asked = [asyncio.create_task(ask(swap.port, payload)) for _ in range(CLIENTS)]
    await asyncio.sleep(0.05)
    hurried = body(model, "Say something.", 4, stream=False, stream_options=None)
    refused = await ask(swap.port, hurried, headers={"x-helexa-deadline-ms": "1"})
    error = json.loads(bytes(refused.raw))["error"] if refused.status == 503 else {}
    answers = await asyncio.gather(*asked)
    firsts = [answer.first - began for answer in answers if answer.whole]
    return Round(
        len(swap.events("model loaded")) - before,
        len(firsts),
        error.get("eta_s"),
        min(firsts, default=0.0),
        max(firsts, default=0.0),
    )


def unload(swap: Swap, model: str) -> None:
    """Put it to sleep."""
    data = json.dumps({"model": model}).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{swap.url}/admin/unload", data, headers), timeout=60
    ):
        pass


async def run(rounds: int, load_s: float, scratch: Path) -> report.Report:
    """The rounds, and what they say."""
    command = f"python benchmarks/cold_start.py --rounds {rounds}"
    found = report.report("cold_start", "Eight clients ask for a cold model at once.", command)
    swap, done = Swap(scratch, load_s), []
    try:
        await swap.ready()
        model = swap.models[0]
        for _ in range(rounds):
            done.append(await cold_start(swap, model))
            await asyncio.to_thread(unload, swap, model)
            await asyncio.sleep(0.5)
    finally:
        swap.stop()
    judged = done[LEARNING:]
    off = [abs((r.eta_s or 0.0) - r.truth_s) / r.truth_s for r in judged if r.truth_s]
    rows = [
        [f"{n}", f"{r.loads}", f"{r.answered}", "–" if r.eta_s is None else f"{r.eta_s:.1f}",
         f"{r.truth_s:.2f}", f"{r.longest_s:.2f}"]
        for n, r in enumerate(done, 1)
    ]  # fmt: skip
    columns = ["round", "loads", "answers", "told, s", "first token, s", "last client's, s"]
    found.tables.append(report.TableData("Cold starts", columns, rows))
    found.figures += [
        report.at_most("loads per cold start", max(r.loads for r in done), 1, ""),
        report.at_least("answers per cold start", min(r.answered for r in done), CLIENTS, ""),
        report.at_most(
            "estimate off by, after the third load", 100 * max(off, default=1.0), 30, "%"
        ),
    ]
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=6, show_default=True)
@click.option("--load-secs", default=3.0, show_default=True)
@report.json_option
def main(rounds: int, load_secs: float, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            found = uvloop.run(run(rounds, load_secs, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
