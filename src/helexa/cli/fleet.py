"""``helexa fleet``: what is loaded where and who waits for what; load, unload, drain, explain."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import quote

import click

from helexa.cli.door import Door, open_door
from helexa.cli.options import endpoint_options, json_option, version_option
from helexa.cli.table import bar, table

BAR = 20
OVERDUE_S = 60.0
"""A load that takes so long, and twice its usual time, may hang."""


@click.group(name="fleet", context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def fleet_group() -> None:
    """See and change what is loaded where.

    These commands ask a running gateway and need a key with admin = true, or, while there is
    none, to be run on its machine.
    """


@fleet_group.command()
@endpoint_options
@json_option
@version_option
def status(endpoint: str, key: str | None, as_json: bool) -> None:
    """Show nodes, their memory, their models, and who waits for what."""
    found = open_door(endpoint, key).ask("GET", "/admin/fleet")
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


@fleet_group.command()
@click.argument("model")
@click.option("--node", help="Load it there.  [default: the best place]")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is loaded.")
@endpoint_options
@json_option
@version_option
def load(
    model: str, node: str | None, no_wait: bool, endpoint: str, key: str | None, as_json: bool
) -> None:
    """Load MODEL, with progress until it serves.

    Room is made for it by the same rules as for a request; on a named node nobody is evicted.
    """
    body = {"model": model, "wait": not no_wait} | ({"node": node} if node is not None else {})
    if no_wait:
        done = open_door(endpoint, key).ask("POST", "/admin/load", body)
    else:
        from helexa.cli.load_progress import load_and_watch

        done = load_and_watch(endpoint, key, model, body)
    if as_json:
        click.echo(json.dumps(done))
    else:
        where = f" on {done['node']}" if done.get("node") else ""
        state = "loaded already" if done["status"] == "present" else done["status"]
        click.echo(f"{done['model']}: {state}{where}")


@fleet_group.command()
@click.argument("model")
@click.option("--node", help="Only this node.  [default: all]")
@click.option("--quant", help="Instead of the catalogue's.")
@click.option("--source", help="Instead of the catalogue's.")
@endpoint_options
@json_option
@version_option
def plan(
    model: str,
    node: str | None,
    quant: str | None,
    source: str | None,
    endpoint: str,
    key: str | None,
    as_json: bool,
) -> None:
    """Show whether and how MODEL would run on each node, without loading it.

    Exit status 1 when it would run nowhere. `helexa doctor MODEL --endpoint NODE` shows all of it.
    """
    from helexa.cli.outlook import by_node

    body = {"model": model, "node": node, "quant": quant, "source": source}
    said = {name: value for name, value in body.items() if value is not None}
    found = open_door(endpoint, key).ask("POST", "/admin/plan", said)
    nodes, loaded = found["nodes"], found.get("loaded", [])
    click.echo(json.dumps(found) if as_json else "\n".join(by_node(nodes, loaded)))
    raise SystemExit(0 if loaded or any(told["ok"] for told in nodes.values()) else 1)


@fleet_group.command()
@click.argument("model")
@click.option("--node", help="Only from this node.  [default: from all]")
@endpoint_options
@json_option
@version_option
def unload(model: str, node: str | None, endpoint: str, key: str | None, as_json: bool) -> None:
    """Unload MODEL; what runs there may finish first. A load under way is cancelled.

    Exit status 1 when a node still has it.
    """
    body = {"model": model} | ({"node": node} if node is not None else {})
    done = open_door(endpoint, key).ask("POST", "/admin/unload", body)
    said = [f"{done['model']} on {one['node']}: {one['status']}" for one in done["nodes"]]
    click.echo(json.dumps(done) if as_json else "\n".join(said))
    raise SystemExit(0 if all(one["status"] == "unloaded" for one in done["nodes"]) else 1)


@fleet_group.command()
@click.argument("node")
@endpoint_options
@json_option
@version_option
def drain(node: str, endpoint: str, key: str | None, as_json: bool) -> None:
    """Let NODE take no new work; what runs there goes on."""
    _drain(open_door(endpoint, key), node, draining=True, as_json=as_json)


@fleet_group.command()
@click.argument("node")
@endpoint_options
@json_option
@version_option
def undrain(node: str, endpoint: str, key: str | None, as_json: bool) -> None:
    """Let NODE take work again."""
    _drain(open_door(endpoint, key), node, draining=False, as_json=as_json)


def _drain(door: Door, node: str, *, draining: bool, as_json: bool) -> None:
    done = door.ask("POST", "/admin/drain", {"node": node, "draining": draining})
    said = "takes no new work" if draining else "takes work again"
    click.echo(json.dumps(done) if as_json else f"{node} {said}")


@fleet_group.command()
@click.argument("name")
@click.argument("url")
@click.option("--ca", help="File with the node's own authority, on the gateway's machine.")
@endpoint_options
@json_option
@version_option
def add(name: str, url: str, ca: str | None, endpoint: str, key: str | None, as_json: bool) -> None:
    """Add the node NAME at URL, until it is removed.

    The gateway remembers it beside its ledger; nodes of cortex.toml come and go with that file.
    """
    body = {"name": name, "endpoint": url} | ({"ca": ca} if ca is not None else {})
    done = open_door(endpoint, key).ask("POST", "/admin/nodes", body)
    click.echo(json.dumps(done) if as_json else f"{name} added")


@fleet_group.command()
@click.argument("name")
@endpoint_options
@json_option
@version_option
def remove(name: str, endpoint: str, key: str | None, as_json: bool) -> None:
    """Forget the node NAME; what runs there goes on. A node of cortex.toml is back after a
    restart."""
    done = open_door(endpoint, key).ask("DELETE", f"/admin/nodes/{quote(name, safe='')}")
    click.echo(json.dumps(done) if as_json else f"{name} removed")


@fleet_group.command()
@click.argument("request")
@endpoint_options
@json_option
@version_option
def explain(request: str, endpoint: str, key: str | None, as_json: bool) -> None:
    """Show why REQUEST went where it went: every candidate with its predicted time."""
    door = open_door(endpoint, key)
    found = door.ask("GET", f"/admin/requests/{quote(request, safe='')}")
    click.echo(json.dumps(found) if as_json else "\n".join(reasons(found)))


# ── for people ──────────────────────────────────────────────────────────────────────────────


def lines(fleet: dict[str, Any], glyphs: Any = None) -> list[str]:
    """The whole fleet."""
    drawn = glyphs or ("blocks" if _draws(sys.stdout) else "ascii")
    shown: list[str] = []
    for node in fleet.get("nodes", []):
        shown += [*_node(node, drawn), ""]
    waiting = fleet.get("waiting", [])
    if waiting:
        rows = [
            [w["model"], str(w["waiters"]), str(w["position"]), _secs(w.get("eta_s")),
             _percent(w.get("progress")), _behind(w.get("behind"))]
            for w in waiting
        ]  # fmt: skip
        heads = ("waiting for", "requests", "place", "ready in", "done", "behind")
        shown += table(heads, rows, "<>>>><", keep=4)
    else:
        shown.append("nobody waits for a model")
    for model, wish in fleet.get("wishes", {}).items():
        shown.append(f"to be loaded: {model}" + (f" ({wish['error']})" if wish["error"] else ""))
    ledger = fleet.get("ledger", {})
    if not ledger.get("ok", True):
        shown.append(f"! the ledger cannot be written: {_unwritten(ledger)}")
    return shown


def _unwritten(ledger: dict[str, Any]) -> str:
    told = (
        f"{ledger.get('why')}. It has been so for {_secs(ledger.get('for_s'))}, and "
        f"{ledger.get('unwritten', 0)} settled requests wait"
    )
    if ledger.get("full"):
        return f"{told}; no more may, so nobody is served"
    return told if ledger.get("granting", True) else f"{told}; keys with caps are granted nothing"


def _node(node: dict[str, Any], glyphs: Any) -> list[str]:
    facts = [node.get("state", "?")]
    if node.get("draining"):
        facts.append("draining")
    if node.get("strikes"):
        facts.append(f"{node['strikes']} polls missed")
    if node.get("socket"):
        facts.append("over its Unix socket")
    if node.get("multiplexed"):
        facts.append("over one connection")
    if node.get("origin") == "admin":
        facts.append("added by the administration")
    under_way = node.get("under_way")
    if under_way:
        facts.append(_doing(under_way))
    shown = [f"{node['name']}  {node['endpoint']}  {', '.join(facts)}"]
    if node.get("error"):
        shown.append(f"  ! {node['error']}")
    totals = {d["index"]: d for d in (node.get("discovery") or {}).get("devices", [])}
    for device in node.get("devices", []):
        used, free = device.get("vram_used_mb", 0), device.get("vram_free_mb", 0)
        name = totals.get(device["index"], {}).get("name", "")
        full = bar(used, used + free, BAR, glyphs).ljust(BAR, " " if glyphs == "blocks" else ".")
        shown.append(f"  {device['index']} {name}  [{full}] {used} of {used + free} MiB")
    rows = [_model(name, found) for name, found in sorted(node.get("models", {}).items())]
    if rows:
        heads = ("model", "state", "requests", "memory", "idle", "priority", "breaker")
        shown += [f"  {line}" for line in table(heads, rows, "<<>>>><", keep=2)]
    return shown


def _model(name: str, found: dict[str, Any]) -> list[str]:
    entry, load = found["entry"], found["load"]
    state = entry["status"]
    if found.get("closing"):
        state += ", about to go"
    elif state == "loaded" and not found.get("servable", True):
        state += ", cannot serve"
    elif state in ("loading", "reloading"):
        state = " ".join(filter(None, (state, _percent(entry.get("progress")))))
    requests = load["in_flight"] + load["queue_depth"]
    memory = f"{entry['vram_used_mb']} MiB" if entry.get("vram_used_mb") else ""
    breaker = found.get("breaker", "closed")
    return [
        name,
        state,
        f"{requests} of {load['max_in_flight']}" if load["max_in_flight"] else "",
        memory,
        _secs(found.get("idle_s")) if not found.get("busy") else "",
        str(found.get("priority", "stays")),
        "" if breaker == "closed" else breaker,
    ]


def _behind(load: dict[str, Any] | None) -> str:
    """The load that has to end first."""
    return "" if load is None else f"{load['model']} on {load['node']}, for {load['for_s']:.0f} s"


def _doing(work: dict[str, Any]) -> str:
    model, seconds = work.get("model", ""), f"for {work['for_s']:.0f} s"
    if work["phase"] == "loading":
        usual = work.get("load_s") or 0.0
        if work["for_s"] <= max(OVERDUE_S, 2 * usual):
            return f"loading {model} {seconds}"
        longer = f", {usual:.0f} s as a rule" if usual else ""
        return f"loading {model} {seconds}{longer} (helexa fleet unload {model} cancels it)"
    leaving = work.get("leaving") or ", ".join(work.get("victims", []))
    return f"{leaving} makes room for {model} {seconds}" if model else f"unloading {leaving}"


def reasons(found: dict[str, Any]) -> list[str]:
    """A request's way, and what the other candidates would have cost."""
    shown = [
        f"{found['id']}  {found['model']}  {found['outcome']} ({found['status']})",
        f"went to {found['node']}: {found['why']}" if "node" in found else "was never placed",
    ]
    error = found.get("error")
    if error:
        shown.append(f"{error.get('code') or 'error'}: {error.get('message')}")
    candidates = found.get("candidates", [])
    rows = [_candidate(one) for one in candidates]
    if rows:
        heads = ("candidate", "first token in", "waiting", "prefill", "load", "cached", "")
        shown += ["", *table(heads, rows, "<>>>>><", keep=2)]
    phases = found.get("ms", {})
    if phases:
        shown += ["", *table(("phase", "ms"), [[n, f"{ms:.1f}"] for n, ms in phases.items()], "<>")]
    return shown


def _candidate(one: dict[str, Any]) -> list[str]:
    if "out" in one:
        return [one["node"], one["out"], "", "", "", "", ""]
    return [
        one["node"],
        _secs(one.get("predicted_s")),
        _secs(one.get("wait_s")) if one.get("wait_s") else "",
        _secs(one.get("prefill_s")),
        _secs(one.get("load_s")),
        str(one.get("cached_tokens") or ""),
        "won" if one.get("won") else "",
    ]


def _secs(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part * 100:.0f} %"


def _draws(stream: Any) -> bool:
    return "utf" in str(getattr(stream, "encoding", "") or "").lower()
