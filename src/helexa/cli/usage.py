"""``helexa usage``: who used what, as a table with bars, as CSV or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlencode

import click

from helexa.cli.door import Door, door_options
from helexa.cli.options import json_option, version_option
from helexa.cli.quantities import WhenType, cap_words, date_words, duration, seconds_of
from helexa.cli.table import bar, table

DIMENSIONS = ("account", "key", "model", "node", "day")
BAR_CELLS = 24


class SinceType(WhenType):
    """A date, or a duration back from now."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = seconds_of(str(value))
        if seconds is not None:
            return datetime.now(UTC).timestamp() - seconds
        return super().convert(value, param, ctx)


class ByType(click.ParamType[tuple[str, ...]]):
    """Some of the dimensions, with commas between them."""

    name = "dimensions"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(str(value).split(",")))
        if not all(name in DIMENSIONS for name in names):
            self.fail(f"{value!r} is not made of {', '.join(DIMENSIONS)}", param, ctx)
        return names


@click.command(name="usage")
@click.option(
    "--by",
    type=ByType(),
    default="key",
    show_default=True,
    help="Group by some of account, key, model, node and day: day,model.",
)
@click.option("--since", type=SinceType(), help="From this date on, or for so long: 7d.")
@click.option("--until", type=SinceType(), help="Before this date, or so long ago.")
@click.option("--account", help="Only this account.")
@click.option("--key-id", help="Only this key.")
@click.option("--model", help="Only this model.")
@click.option("--node", help="Only this node.")
@click.option("--requests", "single", is_flag=True, help="One row per request, newest first.")
@click.option("--limit", type=click.IntRange(1, 100_000), help="At most so many requests.")
@click.option("--mine", is_flag=True, help="The budget of the key that asks; any key may do this.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--chart/--no-chart", default=None, help="Bars behind the rows.  [default: on a "
              "terminal]")  # fmt: skip
@door_options
@json_option
@version_option
def usage_command(
    by: tuple[str, ...],
    single: bool,
    limit: int | None,
    mine: bool,
    as_csv: bool,
    chart: bool | None,
    door: Door,
    as_json: bool,
    **filters: Any,
) -> None:
    """Print tokens and what they cost, by key, account, model, node or day (UTC).

    Costs are tokens times the prices in the catalogue now. A model without prices is unpriced,
    not free.
    """
    if mine:
        found = door.ask("GET", "/v1/usage")
        click.echo(json.dumps(found) if as_json else "\n".join(budget(found)))
        return
    asked = {"key" if name == "key_id" else name: v for name, v in filters.items() if v is not None}
    if single:
        asked |= {} if limit is None else {"limit": limit}
        _print_requests(door, asked, as_csv=as_csv, as_json=as_json)
        return
    path = f"/admin/usage?{urlencode({'group_by': ','.join(by), **asked})}"
    if as_csv:
        click.echo(door.text(f"{path}&format=csv"), nl=False)
        return
    report = door.ask("GET", path)
    if as_json:
        click.echo(json.dumps(report))
        return
    bars = sys.stdout.isatty() if chart is None else chart
    click.echo("\n".join(lines(report, _width() if bars else 0)))


def lines(report: dict[str, Any], width: int) -> list[str]:
    """The report for people.

    Args:
        width: Of the terminal; 0 for no bars.
    """
    by = report["group_by"]
    rows = report["rows"]
    if not rows:
        return ["nothing was used"]
    cells = [[str(row[name]) or "(none)" for name in by] + _figures(row) for row in rows]
    total = ["total", *([""] * (len(by) - 1))] if by else []
    heads = (*by, "requests", "prompt", "cached", "completion", "total", "cost")
    align = "<" * len(by) + ">" * 6
    if by:
        cells.append([*total, *_figures(report["total"])])
    made = table(heads, cells, align, keep=len(by))
    if by and width:
        made = _with_bars(made, [row["total_tokens"] for row in rows], width)
    if report["total"]["unpriced_tokens"]:
        made.append(f"{report['total']['unpriced_tokens']:,} tokens are of models without prices")
    return made


def _with_bars(made: list[str], totals: list[int], width: int) -> list[str]:
    most = max(totals)
    widest = max(len(line) for line in made)
    cells = min(BAR_CELLS, width - widest - 2)
    glyphs: Literal["blocks", "ascii"] = "blocks" if _can_block() else "ascii"
    bars = ["", *(bar(total, most, cells, glyphs) for total in totals), ""]
    return [f"{line:<{widest}}  {shown}".rstrip() for line, shown in zip(made, bars, strict=True)]


def _figures(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['requests']:,}",
        f"{row['prompt_tokens']:,}",
        f"{row['cached_tokens']:,}" if row["cached_tokens"] else "",
        f"{row['completion_tokens']:,}",
        f"{row['total_tokens']:,}",
        price_words(row["cost_usd"], row["unpriced_tokens"]),
    ]


def price_words(cost: float | None, unpriced: int) -> str:
    """Dollars; nothing when nothing has a price, ``+`` when something else has none."""
    if cost is None:
        return ""
    shown = f"${cost:,.2f}" if cost == 0 or cost >= 0.1 else f"${cost:.6f}".rstrip("0")
    return f"{shown}+" if unpriced else shown


def budget(found: dict[str, Any]) -> list[str]:
    """A key's own budget."""
    head = f"{found['key_id']} of {found['account_id']}: "
    head += f"{found['spent_tokens']:,} tokens in {found['requests']:,} requests"
    if not found.get("windows"):
        return [head if found.get("hard_cap") is not None else f"{head}, uncapped"]
    rows = []
    for window in found["windows"]:
        cap = cap_words({"tokens": window["hard_cap"], "window": window["window"]})
        whose = "account" if window.get("scope") == "account" else "key"
        spent, held = window["spent_tokens"], window["open_tokens"]
        resets = window.get("resets_at")
        rows.append([cap, whose, f"{spent:,}", f"{held:,}" if held else "",
                     f"{window['available_tokens']:,}", _resets(resets)])  # fmt: skip
    heads = ("cap", "of", "spent", "held", "left", "renews")
    return [head, *table(heads, rows, "<<>>><", keep=3)]


def _resets(at: float | None) -> str:
    if at is None:
        return ""
    left = at - datetime.now(UTC).timestamp()
    return f"from {date_words(at)} UTC" if left > 86_400 else f"in {duration(max(0, left))}"


def _print_requests(door: Any, asked: dict[str, Any], *, as_csv: bool, as_json: bool) -> None:
    path = f"/admin/usage/requests?{urlencode(asked)}"
    if as_csv:
        click.echo(door.text(f"{path}&format=csv"), nl=False)
        return
    found = door.ask("GET", path)
    if as_json:
        click.echo(json.dumps(found))
        return
    heads = ("settled (UTC)", "request", "account", "key", "model", "node", "prompt", "cached",
             "completion")  # fmt: skip
    rows = [
        [
            datetime.fromtimestamp(row["at"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            row["request_id"], row["account_id"], row["key_id"], row["model"], row["node"],
            f"{row['prompt']:,}", f"{row['cached']:,}" if row["cached"] else "",
            f"{row['completion']:,}",
        ]
        for row in found["requests"]
    ]  # fmt: skip
    click.echo("\n".join(table(heads, rows, "<<<<<<>>>", keep=2)))


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _can_block() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "█▏".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
