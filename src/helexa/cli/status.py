"""``cortex status``: the gateway's health, and a line per model with the nodes that have it."""

from __future__ import annotations

import json
from typing import Any

import click

from helexa.cli.options import endpoint_options, json_option, version_option

_LOADS = ("load_failed", "insufficient_vram", "activation_failed")
"""Reasons of models that are on no engine; the node itself is well."""


@click.command(name="status")
@endpoint_options
@json_option
@version_option
def status_command(endpoint: str, key: str | None, as_json: bool) -> None:
    """Print what a running gateway can serve.

    Exit status 1 when it does not answer or is not well.
    """
    from helexa.cli.door import listed_by
    from helexa.cli.remote import Unreachable, get_json

    code, health = get_json(endpoint, "/health")
    if code != 200 or not isinstance(health, dict):
        raise Unreachable(f"{endpoint}/health answered {code}")
    models = listed_by(endpoint, key)
    if as_json:
        click.echo(json.dumps({"health": health, "models": models}))
    else:
        click.echo("\n".join(lines(health, models)))
    if health.get("status") != "ok":
        raise SystemExit(1)


def lines(health: dict[str, Any], models: list[dict[str, Any]]) -> list[str]:
    """The report for people."""
    nodes = health.get("nodes", {})
    healthy, total = nodes.get("healthy", 0), nodes.get("total", 0)
    head = f"{health.get('status', '?')}: {healthy} of {total} nodes healthy"
    if nodes.get("draining"):
        head += f", {nodes['draining']} taking no new work"
    trouble = [_trouble(problem) for problem in health.get("unservable", [])]
    if healthy < total:
        trouble.insert(0, "  ! `helexa fleet status` says which node does not answer, and why")
    ledger = health.get("ledger", {})
    if not ledger.get("ok", True):
        trouble.insert(0, "  ! the ledger cannot be written; `helexa fleet status` says why")
    width = max((len(m.get("id", "")) for m in models), default=0)
    return [head, *trouble, *(_model(m, width) for m in models)]


def _trouble(problem: dict[str, Any]) -> str:
    """What cannot be served where, and why; a load that failed says that it was one."""
    reason = problem.get("reason")
    failed = " could not be loaded" if reason in _LOADS else ""
    where = f"  ! {problem.get('model')} on {problem.get('node')}{failed}"
    return f"{where}: {problem.get('detail') or reason}"


def _model(model: dict[str, Any], width: int) -> str:
    places = [f"{p.get('node')} ({p.get('status')})" for p in model.get("locations", [])]
    if not places:
        feasible = ", ".join(model.get("feasible_on", [])) or "nowhere"
        places = [f"asleep, could run on {feasible}"]
    limit = model.get("limit") or {}
    context = f"  {limit['context']} tokens" if limit.get("context") else ""
    return f"{model.get('id', '?'):<{width}}  {', '.join(places)}{context}"
