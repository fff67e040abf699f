"""What a streamed token costs more when its client speaks Messages or Responses instead of chat.

The same stub nodes stream the same chat to the same gateway, which relays it or renders it in the
other dialect; the difference of CPU time per token is the translation. Tokens come one by one, as
an engine makes them, and what a request costs once (decoding it, its first and last events) is
shared out among its tokens. LiteLLM does the same in the same run, if it is installed (see
``gateway.py``).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
from gateway import CLIENT_KEYS
from kit import peers, report
from kit.gateway import cortex, wait_until_served
from kit.process import Failed
from kit.report import Figure, Report, TableData
from kit.stub import Stub, load
from load import DIALECTS

TOKENS = 64
STREAMS = 32
GAP_MS = 4
BARS_US = {"messages": 25.0, "responses": 35.0}
"""Above relaying."""

Costs = dict[tuple[str, str], list[float]]
"""CPU microseconds per token, by target and dialect, one for each round."""


def token_us(target: peers.Target, dialect: str, seconds: float) -> float:
    """CPU microseconds of one streamed token.

    Raises:
        Failed: The target answered with errors, or not at all.
    """
    seen = load(
        target.port,
        [target.process.pid],
        CLIENT_KEYS,
        streams=STREAMS,
        stream=True,
        dialect=dialect,
        seconds=seconds,
        max_tokens=TOKENS,
    )
    if seen["errors"] or not seen["requests"]:
        raise Failed(f"{target.name}, {dialect}: {seen['errors']} errors: {seen['faults']}")
    return float(seen["cpu_us_per_request"]) / TOKENS


def rounds(
    targets: Sequence[peers.Target], dialects: Sequence[str], count: int, seconds: float
) -> Costs:
    """Every target in chat and every other dialect, ``count`` times, in turns."""
    costs: Costs = {}
    for number in range(count):
        for target in targets:
            for dialect in ("chat", *dialects):
                click.echo(f"round {number + 1}/{count}: {target.name}: {dialect}", err=True)
                # A proxy that needs a thousand times as long must still finish some answers.
                window = seconds if target.name == "helexa" else 4 * seconds
                costs.setdefault((target.name, dialect), []).append(
                    token_us(target, dialect, window)
                )
    return costs


def added(costs: Costs, target: str, dialect: str) -> list[float]:
    """What the translation costs, each round for itself."""
    pairs = zip(costs[target, dialect], costs[target, "chat"], strict=True)
    return [translated - relayed for translated, relayed in pairs]


def figures(costs: Costs) -> list[Figure]:
    """The bars, and the ratio to LiteLLM."""
    found = []
    for dialect, bar in BARS_US.items():
        if ("helexa", dialect) not in costs:
            continue
        ours = added(costs, "helexa", dialect)
        note = f"rounds {min(ours):.3g} to {max(ours):.3g}"
        name = f"{dialect}: a token's translation"
        found.append(report.at_most(name, statistics.median(ours), bar, "µs", note))
        name = f"{name}, to LiteLLM's"
        if ("litellm", dialect) not in costs:
            found.append(report.not_measured(name, "", "litellm not installed"))
            continue
        theirs = statistics.median(added(costs, "litellm", dialect))
        ratio = statistics.median(ours) / theirs
        found.append(Figure(name, f"{ratio:.4g} ×", note=f"LiteLLM's: {theirs:,.4g} µs"))
    return found


def cost_table(costs: Costs) -> TableData:
    """CPU µs per token."""
    names = list(dict.fromkeys(name for name, _ in costs))
    rows = [
        [dialect, *(f"{statistics.median(costs[name, dialect]):,.4g}" for name in names)]
        for dialect in DIALECTS
        if (names[0], dialect) in costs
    ]
    return TableData("CPU µs of the gateway per streamed token", ["", *names], rows)


def run(dialects: Sequence[str], count: int, seconds: float, peers_folder: Path | None) -> Report:
    """Start, measure, stop."""
    found = report.report(
        "dialects",
        "what rendering a token in another dialect adds to relaying it",
        f"python benchmarks/dialects.py --rounds {count} --seconds {seconds:g}",
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        stub = Stub(scratch, f"--tokens={TOKENS}")
        stack.callback(stub.stop)
        tools = peers.Tools(peers_folder, scratch)
        targets = []
        # LiteLLM speaks only chat with LM Studio; to others it passes other dialects on as such.
        for target in (cortex(tools, stub), peers.litellm(tools, stub, "lm_studio")):
            if target is not None:
                stack.callback(target.process.stop)
                wait_until_served(target)
                targets.append(target)
        stub.play(gap_ms=GAP_MS)
        costs = rounds(targets, dialects, count, seconds)
    found.tables.append(cost_table(costs))
    found.figures += figures(costs)
    return found


@click.command(help=__doc__)
@click.option("--rounds", "count", default=3, show_default=True, help="Rounds; medians count.")
@click.option("--only", default=",".join(BARS_US), show_default=True, help="Dialects to measure.")
@click.option("--seconds", default=2.0, show_default=True, help="Length of one measurement.")
@click.option(
    "--peers",
    "peers_folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=report.ROOT / ".bench" if (report.ROOT / ".bench").is_dir() else None,
    help="Virtual environment with LiteLLM.  [default: .bench]",
)
@report.json_option
def main(
    count: int, only: str, seconds: float, peers_folder: Path | None, json_file: Path | None
) -> None:
    folder = peers_folder.resolve() if peers_folder else None
    try:
        found = run(only.split(","), count, seconds, folder)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
