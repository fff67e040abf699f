"""``helexa simulate``: a trace replayed against the gateway's own decisions, on simulated nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helexa.cli.options import json_option, version_option

if TYPE_CHECKING:
    from helexa.cortex.simulate.fleet import FleetSpec
    from helexa.cortex.simulate.report import Summary
    from helexa.cortex.simulate.trace import Asked

POLICIES = ("routed", "oracle", "round-robin", "random")


@click.command(name="simulate")
@click.argument("trace", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "--fleet",
    type=click.Path(path_type=Path),
    help="Nodes, models and residency rules (TOML).  [default: 8 nodes with one model]",
)
@click.option(
    "--policy",
    "policies",
    type=click.Choice([*POLICIES, "all"]),
    multiple=True,
    default=("routed",),
    show_default=True,
    help="Who chooses the place; may be given more than once.",
)
@click.option(
    "--warm-up",
    "after",
    default=0.0,
    metavar="SECONDS",
    help="Leave out requests that came before.",
)
@click.option(
    "--seed", default=1, show_default=True, help="Seed of --generate and of the policy random."
)
@click.option(
    "--generate",
    "rate",
    type=float,
    metavar="RATE",
    help="Print a trace instead: 150 customers with a shared prefix each, RATE requests a second.",
)
@click.option("--seconds", default=60.0, show_default=True, help="Length of that trace.")
@json_option
@version_option
def simulate_command(
    trace: Path | None,
    fleet: Path | None,
    policies: tuple[str, ...],
    after: float,
    seed: int,
    rate: float | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Replay TRACE ('-' is standard input) and print latencies, loads, evictions and hit rates.

    Who serves what is decided by the code of the gateway. A trace has one request a line:

    {"at": 0.0, "model": "model", "prompt": [["system", 6000], ["question", 300]], "output": 200}
    """
    from helexa.core.settings import SettingsError
    from helexa.cortex.simulate import fleet as fleets
    from helexa.cortex.simulate import trace as traces

    if rate is not None:
        if rate <= 0 or seconds <= 0:
            raise click.UsageError("--generate and --seconds need a number above 0")
        sys.stdout.writelines(traces.write(traces.customers(rate, seconds, seed=seed)))
        return
    if trace is None:
        raise click.UsageError("which TRACE? '-' reads one; --generate RATE prints one")
    try:
        spec = fleets.read(fleet) if fleet is not None else fleets.FleetSpec()
        asked = list(traces.read(_lines(trace)))
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error
    except (SettingsError, traces.TraceError) as error:
        raise click.UsageError(str(error)) from error
    _doubt(spec, asked)
    wanted = POLICIES if "all" in policies else tuple(dict.fromkeys(policies))
    found = {name: _simulate(name, spec, asked, after, seed) for name in wanted}
    _print(found, as_json=as_json)


def _doubt(spec: FleetSpec, asked: list[Asked]) -> None:
    """Say which models the trace asks for and the fleet does not have: all of that is refused."""
    known = {model.id for model in spec.models}
    lacking = sorted({one.model for one in asked} - known)
    if lacking:
        click.echo(
            f"refused: the fleet has no {', '.join(lacking)}; it has {', '.join(sorted(known))}",
            err=True,
        )


def _lines(trace: Path) -> Iterable[str]:
    return sys.stdin if str(trace) == "-" else trace.read_text().splitlines()


def _simulate(name: str, spec: FleetSpec, asked: list[Asked], after: float, seed: int) -> Summary:
    from helexa.cortex.simulate.policies import Blind, Oracle, Policy, Routed
    from helexa.cortex.simulate.report import summary
    from helexa.cortex.simulate.run import Clock, Simulation

    def policy(clock: Clock) -> Policy:
        match name:
            case "oracle":
                return Oracle()
            case "random":
                return Blind(seed)
            case "round-robin":
                return Blind()
        return Routed(clock)

    return summary(Simulation(spec, policy).run(asked), after)


def _print(found: dict[str, Summary], *, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    rows: dict[str, dict[str, Any]] = {
        name: msgspec.to_builtins(summary) for name, summary in found.items()
    }
    width = max(len(name) for name in rows)
    for label, names in _TABLES:
        click.echo(f"{label:<{width}}  " + "  ".join(f"{name:>11}" for name in names))
        for policy, row in rows.items():
            none = row["requests"] == row["refused"]
            shown = ("–" if none and _is_of_served(n) else _shown(n, row[n]) for n in names)
            values = "  ".join(f"{value:>11}" for value in shown)
            click.echo(f"{policy:<{width}}  {values}")
        click.echo()


_TABLES = (
    ("", ("requests", "refused", "cold", "loads", "evictions", "hits", "cached", "spread")),
    ("", ("first_p50", "first_p90", "first_p99", "total_p50", "total_p90")),
)
_SHARES = frozenset(("hits", "cached"))


_TIMES = ("first", "total")


def _is_of_served(name: str) -> bool:
    """Whether a figure says nothing where every request was refused."""
    return name in _SHARES or name.startswith(_TIMES)


def _shown(name: str, value: Any) -> str:
    if name in _SHARES:
        return f"{value:.1%}"
    if name.startswith(_TIMES):
        return f"{value:.3f} s"
    return f"{value:g}"
