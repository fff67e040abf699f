"""Waiting for a load: a bar on a terminal, a line per change elsewhere; both on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import click

from helexa.cli.door import refusal
from helexa.cli.remote import Unreachable, ask, get_json

PATIENCE_S = 3600.0
EVERY_S = 0.25
LINE_S = 10.0
STEP = 0.05
BAR_STEPS = 1000
LEFT = (
    "What has begun goes on: `helexa fleet status` shows it, `helexa fleet unload {model}` ends it."
)


def load_and_watch(
    endpoint: str, key: str | None, model: str, body: dict[str, Any]
) -> dict[str, Any]:
    """Post the load and show how it goes until it is answered.

    Raises:
        click.ClickException: It was refused or failed; the message is the gateway's.
        KeyboardInterrupt: Somebody did not want to wait; the load may go on, and they are told so.
    """
    answer: list[tuple[int, bytes]] = []
    failed: list[Unreachable] = []

    def post() -> None:
        try:
            answer.append(ask(endpoint, "POST", "/admin/load", body, key=key, timeout=PATIENCE_S))
        except Unreachable as error:
            failed.append(error)

    posting = threading.Thread(target=post, daemon=True)
    posting.start()
    try:
        _show(posting, endpoint, key, model)
    except KeyboardInterrupt:
        click.echo(f"\n{LEFT.format(model=model)}", err=True, nl=False)
        raise
    if failed:
        raise failed[0]
    status, text = answer[0]
    if status >= 300:
        raise click.ClickException(refusal(status, text))
    done: dict[str, Any] = json.loads(text)
    return done


def _show(posting: threading.Thread, endpoint: str, key: str | None, model: str) -> None:
    if sys.stderr.isatty():
        _draw(posting, endpoint, key, model)
    else:
        _tell(posting, endpoint, key, model)


def _draw(posting: threading.Thread, endpoint: str, key: str | None, model: str) -> None:
    """A bar, with the words of the moment behind it."""
    bar = click.progressbar(
        length=BAR_STEPS,
        label=model,
        show_eta=False,
        item_show_func=_as_it_is,
        file=sys.stderr,
        update_min_steps=0,  # the words change where the bar stands still
    )
    with bar:
        while posting.is_alive():
            posting.join(EVERY_S)
            part, words = _standing(endpoint, key, model)
            bar.update(round((part or 0.0) * BAR_STEPS) - bar.pos, current_item=words)


def _as_it_is(words: str | None) -> str | None:
    return words  # None before the first look: then nothing is shown


def _tell(posting: threading.Thread, endpoint: str, key: str | None, model: str) -> None:
    """A line per change; a download's words change all the time, so one for every step there."""
    said, said_at, part_said = "", 0.0, -1.0
    while posting.is_alive():
        posting.join(EVERY_S)
        part, words = _standing(endpoint, key, model)
        if not words or words == said:
            continue
        moved = (part or 0.0) - part_said >= STEP or " of " not in words
        if moved or time.monotonic() - said_at >= LINE_S:
            click.echo(f"{model}: {words}", err=True)
            said, said_at, part_said = words, time.monotonic(), part or 0.0


def _standing(endpoint: str, key: str | None, model: str) -> tuple[float | None, str]:
    """How far it is (0 to 1), and in words."""
    try:
        status, fleet = get_json(endpoint, "/admin/fleet", key=key)
    except Unreachable:
        return None, ""
    if status != 200:
        return None, ""
    for line in fleet.get("waiting", []):
        if line["model"] == model:
            eta = line.get("eta_s")
            words = f"place {line['position']}" + _fetched(line)
            return line.get("progress"), words + ("" if eta is None else f", about {eta:.0f} s")
    for node in fleet.get("nodes", []):
        entry = node.get("models", {}).get(model, {}).get("entry", {})
        if entry.get("status") in ("loading", "reloading"):
            eta = entry.get("eta_s")
            words = f"loading on {node['name']}" + _fetched(entry)
            return entry.get("progress"), words + ("" if eta is None else f", about {eta:.0f} s")
    return None, ""


def _fetched(said: dict[str, Any]) -> str:
    """How far its files are, while they are fetched."""
    import msgspec

    from helexa.core.fleet import Download

    found = said.get("download")
    return "" if not found else f", fetched {msgspec.convert(found, Download).words()}"
