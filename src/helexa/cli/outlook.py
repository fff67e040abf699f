"""An outlook for people: does it run here, on what, with how much, and what would help."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import click
import msgspec

from helexa.cli.memory_bar import lines_of, size
from helexa.cli.table import table
from helexa.core.outlook import Outlook, ToFetch

_INDENT = 10
_PLAIN = str.maketrans("█▓▒░╱·▕▏✓✗", "#wkco.||+-")
"""For terminals that cannot draw."""
MIB = 1 << 20


def render(told: Outlook, *, draws: bool = True) -> str:
    """The whole text; in letters alone where nothing else can be shown."""
    text = "\n".join(_lines(told)) + "\n"
    return text if draws else text.translate(_PLAIN)


def by_node(found: dict[str, Any], loaded: Collection[str] = ()) -> list[str]:
    """A line per node, and under it what would help where it would not run.

    Args:
        loaded: Nodes that have it; what would become of it there is no question.
    """
    outlooks = {name: msgspec.convert(told, Outlook) for name, told in found.items()}
    heads = ("node", "", "engine", "memory", "context", "slots", "to fetch")
    rows = [
        [name, "loaded", *[""] * 5] if name in loaded else _node_row(name, told)
        for name, told in outlooks.items()
    ]
    shown = table(heads, rows, "<<<>>>>", keep=2) if rows else ["no node answers"]
    for name, told in outlooks.items():
        if not told.ok and name not in loaded:
            shown += ["", f"{name}: {told.detail or told.reason}"]
            shown += [f"    {step.what}" for step in told.nearest]
    return shown


def _node_row(name: str, told: Outlook) -> list[str]:
    verdict = "runs" if told.ok else "not now" if told.possible else "never"
    needed = sum(use.needed_mb for use in told.memory)
    missing = told.download.bytes_missing / MIB if told.download is not None else 0
    return [
        name,
        verdict,
        told.engine or "",
        size(needed) if needed else "",
        str(told.context or ""),
        str(told.slots or ""),
        size(missing) if missing else "",
    ]


def _lines(told: Outlook) -> Iterator[str]:
    yield from _row(told.model_id, [_what(told)], width=len(told.model_id) + 2)
    yield ""
    yield from _row("verdict", [_verdict(told)])
    for one in told.candidates:
        mark, colour = ("✓", "green") if one.ok else ("✗", "red")
        version = f" {one.version}" if one.version else ""
        words = one.why if one.ok else one.detail or one.reason or ""
        yield from _row("", [f"{click.style(mark, fg=colour)} {one.engine}{version}: {words}"])
    for use in told.memory:
        name = use.name if use.index < 0 else f"device {use.index} ({use.name})"
        yield from _row("memory", [name, *lines_of(use)])
    yield from _row("context", _context(told))
    yield from _row("download", _download(told.download))
    yield from _row("can", _abilities(told))
    yield from _row("quants", [" ".join(told.quants)] if len(told.quants) > 1 else [])
    yield from _row("note", told.notes)
    if told.ok:
        yield from _row("keep it", ["models.toml of the gateway:", *_entry(told)])
    for step in told.nearest:
        yield from _row("nearest", [step.what, *(f"    {line}" for line in step.lines)])


def _row(name: str, lines: list[str], width: int = _INDENT) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{name if not number else '':<{width}}{line}"


def _what(told: Outlook) -> str:
    count = f"{_count(told.parameters)} weights" if told.parameters else ""
    stored = size(told.weights_mb) if told.weights_mb else ""
    found = (told.quant, told.format, told.architecture, count, stored)
    return ", ".join(part for part in found if part)


def _verdict(told: Outlook) -> str:
    if told.ok:
        return click.style(f"runs here, on {told.engine}", fg="green")
    said = "does not run here now" if told.possible else "does not run here"
    return f"{click.style(said, fg='red')}: {told.detail or told.reason}"


def _context(told: Outlook) -> list[str]:
    if not told.context:
        return [f"{told.context_native} tokens by itself"] if told.context_native else []
    native = f" of its own {told.context_native}" if told.context_native else ""
    slots = f"{told.slots} slot{'s' if told.slots != 1 else ''}"
    kept = f", {told.kv_cells} cells of {told.kv_type} KV" if told.kv_cells else ""
    lines = [f"{told.context} tokens{native}, {slots}{kept}"]
    if told.limit is not None:
        lines += [f"a prompt may have {told.limit.input} tokens, an answer {told.limit.output}"]
    return lines


def _download(found: ToFetch | None) -> list[str]:
    if found is None:
        return []
    if not found.bytes_missing:
        return [f"none: its {size(found.bytes_total / MIB)} are here"]
    how = "measured" if found.measured else "assumed"
    missing, whole = size(found.bytes_missing / MIB), size(found.bytes_total / MIB)
    rate = f"{found.rate / 1e6:.1f} MB/s ({how})"
    lines = [f"{missing} of {whole}, about {_time(found.seconds)} at {rate}"]
    if found.disk_free is not None:
        lines += [f"to {found.folder}, where {size(found.disk_free / MIB)} are free"]
    return lines


def _abilities(told: Outlook) -> list[str]:
    if not told.capabilities:
        return []
    words = ", ".join(told.capabilities)
    thinking = told.thinking
    if thinking is not None:
        how = ["always thinks first"] if thinking.forced else []
        how += [f"thinking switched by {thinking.variable}"] if thinking.variable else []
        how += [f"reasoning_effort {' '.join(thinking.levels)}"] if thinking.levels else []
        words += f" ({'; '.join(how)})" if how else ""
    if told.pooling:
        words += f" (pooling {told.pooling})"
    lines = [words]
    if told.sampling:
        values = ", ".join(f"{name} {value:g}" for name, value in told.sampling.items())
        lines += [f"its publisher samples with {values}"]
    if told.unsupported:
        lines += [f"not here, though the model could: {', '.join(told.unsupported)}"]
    return lines


def _entry(told: Outlook) -> list[str]:
    """The catalogue's entry that makes it so."""
    lines = ["[[models]]", f'id = "{told.model_id}"', f'harness = "{told.engine}"']
    if len(told.quants) > 1:
        lines += [f'quant = "{told.quant}"']
    if told.source not in ("", "builtin", "file"):
        lines += [f'source = "{told.source}"']
    return [f"    {line}" for line in lines]


def _count(number: int) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return str(number)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
