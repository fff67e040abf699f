"""Reports: Markdown, JSON and one page of HTML that needs nothing else."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Sequence

import msgspec

from helexa.bench.report.answers import CellAnswer, Curve
from helexa.bench.stats.summary import Summary
from helexa.bench.stats.verdict import TOGETHER, Verdict
from helexa.bench.store.cell import HIGHER_IS_BETTER

_COLUMNS = (
    ("first_token_ms", "first token (ms)"),
    ("decode_rate", "tokens/s"),
    ("inter_token_p99_ms", "gap p99 (ms)"),
    ("throughput", "all streams tokens/s"),
    ("load_ms", "load (ms)"),
)


class Report(msgspec.Struct, frozen=True):
    """Everything a report shows; ``made_at`` in epoch seconds."""

    made_at: float
    cells: Sequence[CellAnswer]
    regressions: Sequence[Verdict]
    concurrency: Sequence[Curve]
    scaling: Sequence[Curve]


def to_json(report: Report) -> str:
    """For programs."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def to_markdown(report: Report) -> str:
    """For people and pull requests."""
    lines = ["# helexa bench", "", f"{_date(report.made_at)}. Medians with 95 % intervals.", ""]
    lines += _failing(report)
    lines += _regressions(report)
    for target, cells in _by_target(report.cells).items():
        lines += [f"## {target}", "", f"{cells[0].hardware}, {_builds(cells)}", ""]
        lines += _table(cells)
    lines += _curves(report)
    return "\n".join(lines).rstrip() + "\n"


def to_html(report: Report) -> str:
    """A page of its own: readable without the bench."""
    body: list[str] = []
    rows: list[str] = []
    for line in to_markdown(report).splitlines():
        if line.startswith("|"):
            rows.append(line)
            continue
        if rows:
            body.append(_html_table(rows))
            rows = []
        body.append(_html_line(line))
    if rows:
        body.append(_html_table(rows))
    return _HTML.format(body="\n".join(body))


def change(cell: CellAnswer) -> str:
    """A cell's verdict in a few signs: what changed, and whether that is believed."""
    if cell.still_failing:
        return "**failing** every run fails"
    verdict = cell.verdict
    if verdict is None:
        return "new"
    if verdict.word == "broken":
        return "**broken** every run fails"
    if not all(verdict.samples):
        return "no figure to compare"
    sign = f"{verdict.change * 100:+.1f} %"
    if verdict.word == "same":
        return "="
    if verdict.word == "unsure":
        return f"{sign} (not sure)"
    return f"**{verdict.word}** {sign}"


def verdict_line(verdict: Verdict) -> str:
    """One verdict as a sentence."""
    if verdict.scenario == TOGETHER:
        return (
            f"{verdict.target} · {verdict.model}: all together {verdict.change * 100:+.1f} % "
            f"({'worse' if verdict.change > 0 else 'better'}; p {verdict.p:.2g})"
        )
    cell = f"{verdict.target} · {verdict.model} · {verdict.scenario}"
    if verdict.word == "broken":
        return (
            f"{cell}: every run fails with {verdict.new_build}; it worked with {verdict.old_build}"
        )
    if not all(verdict.samples):
        old, new = verdict.samples
        return f"{cell}: {verdict.metric} cannot be compared ({old} and {new} runs have one)"
    better = "higher is better" if verdict.metric in HIGHER_IS_BETTER else "lower is better"
    return (
        f"{cell}: {verdict.metric} "
        f"{_number(verdict.old_median)} → {_number(verdict.new_median)} "
        f"({verdict.change * 100:+.1f} %, "
        f"{better}; p {verdict.p:.2g}, {verdict.samples[0]} and {verdict.samples[1]} runs)"
    )


def _failing(report: Report) -> list[str]:
    """What never worked: no verdict on a change would say so."""
    lines = [
        f"- {cell.target} · {cell.model} · {cell.scenario}: every run fails with {cell.build}"
        for cell in report.cells
        if cell.still_failing
    ]
    return ["## Failing", "", *lines, ""] if lines else []


def _regressions(report: Report) -> list[str]:
    if report.regressions:
        found = (f"- {verdict_line(v)}" for v in report.regressions)
        return ["## Worse than before", "", *found, ""]
    judged = [
        cell.verdict for cell in report.cells if cell.verdict is not None and not cell.still_failing
    ]
    if not judged and any(cell.verdict for cell in report.cells):
        return []  # all of it is failing, which has been said
    if not judged:
        return ["There is no build before this one: nothing to compare with yet.", ""]
    unsure = sum(verdict.word == "unsure" for verdict in judged)
    why = "too few runs, or they scatter too much"
    if unsure == len(judged):
        return [f"No cell can be judged against the build before it yet: {why}.", ""]
    fine = "No cell is known to be worse than with the build before it."
    unknown = f" {unsure} of {len(judged)} cannot be judged yet: {why}."
    return [fine + (unknown if unsure else ""), ""]


def _by_target(cells: Sequence[CellAnswer]) -> dict[str, list[CellAnswer]]:
    groups: dict[str, list[CellAnswer]] = {}
    for cell in cells:
        groups.setdefault(cell.target, []).append(cell)
    return groups


def _builds(cells: Sequence[CellAnswer]) -> str:
    """The build that all were measured with, or that there are several, newest first."""
    newest = sorted(cells, key=lambda cell: -cell.first_at)
    names = list(dict.fromkeys(f"`{cell.build}`" for cell in newest))
    if len(names) == 1:
        return f"build {names[0]}"
    return f"not all measured with the newest build: {', '.join(names)}"


def _table(cells: Sequence[CellAnswer]) -> list[str]:
    used = [(name, title) for name, title in _COLUMNS if any(name in c.metrics for c in cells)]
    several = len({cell.build for cell in cells}) > 1
    named = ["build"] if several else []
    head = ["model", "scenario", *named, *(title for _, title in used), "runs", "change"]
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [_cell_row(cell, [name for name, _ in used], with_build=several) for cell in cells]
    return [*lines, ""]


def _cell_row(cell: CellAnswer, metrics: Sequence[str], *, with_build: bool) -> str:
    runs = f"{cell.ok_runs}" + (f" (+{cell.failed_runs} failed)" if cell.failed_runs else "")
    figures = [_figure(cell.metrics.get(name)) for name in metrics]
    named = [cell.build] if with_build else []
    return _row([cell.model, cell.scenario, *named, *figures, runs, change(cell)])


def _figure(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.n == 1:
        return _number(summary.median)
    return f"{_number(summary.median)} ({_number(summary.low)} to {_number(summary.high)})"


def _number(value: float) -> str:
    """Four significant digits, never with an exponent: a load easily takes 10,000 ms."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


def _curves(report: Report) -> list[str]:
    lines: list[str] = []
    lines += [f"- {curve.target} · {curve.model}: {_knee(curve)}" for curve in report.concurrency]
    lines += [
        f"- {curve.target} · {curve.model}: {_flat(curve.flatness)}"
        for curve in report.scaling
        if curve.flatness is not None
    ]
    return ["## Curves", "", *lines, ""] if lines else []


def _knee(curve: Curve) -> str:
    if not curve.first_token_ms:
        return "no good run at any concurrency"
    level = "less than the first level" if curve.knee is None else f"{curve.knee} streams"
    return f"concurrency knee at {level}"


def _flat(slope: float) -> str:
    percent = (2**slope - 1) * 100
    return f"decoding {'loses' if percent < 0 else 'gains'} {abs(percent):.1f} % per doubled prompt"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


_HTML = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>helexa bench</title>
<style>body{{font:15px/1.5 system-ui;max-width:70em;margin:2em auto;padding:0 1em;
color-scheme:light dark;overflow-wrap:anywhere}}
table{{border-collapse:collapse;display:block;overflow-x:auto;overflow-wrap:normal}}
td,th{{padding:.3em .8em;border-bottom:1px solid #8884;text-align:left}}</style>
<main>
{body}
</main></html>
"""


def _html_table(rows: Sequence[str]) -> str:
    parsed = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    head, cells = parsed[0], parsed[2:]
    out = [
        '<table tabindex="0"><thead><tr>',
        *(f'<th scope="col">{html.escape(c)}</th>' for c in head),
    ]
    out.append("</tr></thead><tbody>")
    out += ["<tr>" + "".join(f"<td>{_bold(c)}</td>" for c in row) + "</tr>" for row in cells]
    return "".join([*out, "</tbody></table>"])


def _html_line(line: str) -> str:
    if line.startswith("#"):
        level = len(line) - len(line.lstrip("#"))
        return f"<h{level}>{html.escape(line.strip('# '))}</h{level}>"
    if line.startswith("- "):
        return f"<p>{_bold(line[2:])}</p>"
    return f"<p>{_bold(line)}</p>" if line else ""


def _bold(text: str) -> str:
    plain = html.escape(text).replace("\\|", "|")
    parts = re.sub("`([^`]*)`", r"<code>\1</code>", plain).split("**")
    return "".join(f"<strong>{p}</strong>" if i % 2 else p for i, p in enumerate(parts))
