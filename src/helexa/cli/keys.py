"""``helexa keys``: make, find, change, rotate and revoke the keys of a gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from helexa.cli.door import Door, door_options
from helexa.cli.options import json_option, version_option
from helexa.cli.quantities import CapType, SpanType, WhenType, cap_words, date_words
from helexa.cli.table import table

F = TypeVar("F", bound=Callable[..., Any])

SHOWN = 12
"""Letters of a secret that are looked for: more of it has no business in a path."""

LIFTED: dict[str, Any] = {
    "caps": [],
    "models": [],
    "priority": None,
    "expires": None,
    "requests-per-minute": None,
    "max-concurrent": None,
}
"""What a limit is when there is none."""


@click.group(name="keys", context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def keys_group() -> None:
    """Make, find, change, rotate and revoke keys.

    A secret is printed once, when it is made; the gateway keeps only its hash. KEY is the id of
    a key, or the first letters of its secret.
    """


def rights_options(command: F) -> F:
    """What a key may do; None or empty is what was not given."""
    for option in reversed(
        (
            click.option(
                "--cap",
                "caps",
                type=CapType(),
                multiple=True,
                help="At most so many tokens: 2m for a balance, 500k/24h for a rolling window. "
                "May be given several times; the tightest binds.",
            ),
            click.option(
                "--model", "models", multiple=True, help="May use this model or alias; repeatable."
            ),
            click.option("--may-load/--no-load", default=None, help="May cause a model to load."),
            click.option(
                "--priority",
                type=click.IntRange(-1000, 1000),
                help="Where requests wait for a seat, the higher goes first; 0 unless set.",
            ),
            click.option("--expires", type=WhenType(), help="When it expires: 2027-01-31, or 30d."),
            click.option(
                "--requests-per-minute", type=click.IntRange(1), help="Requests in any minute."
            ),
            click.option("--max-concurrent", type=click.IntRange(1), help="Open requests at once."),
            click.option("--admin/--no-admin", default=None, help="May administer the gateway."),
            click.option("--note", help="Your own words about it."),
        )
    ):
        command = option(command)
    return command


@keys_group.command()
@click.argument("account")
@click.option("--id", "key_id", help="Its name in logs and metrics.  [default: made up]")
@rights_options
@door_options
@json_option
@version_option
def create(account: str, key_id: str | None, door: Door, as_json: bool, **rights: Any) -> None:
    """Make a key of ACCOUNT; the secret is the only line on stdout."""
    body = {"account_id": account, **_given(rights)}
    if key_id is not None:
        body["key_id"] = key_id
    _print_secret(door.ask("POST", "/admin/keys", body), as_json, "created")


@keys_group.command(name="list")
@click.option("--account", help="Only keys of this account.")
@click.option("--all", "everything", is_flag=True, help="Also revoked keys.")
@door_options
@json_option
@version_option
def list_(account: str | None, everything: bool, door: Door, as_json: bool) -> None:
    """List keys."""
    asked = f"?account={quote(account, safe='')}" if account is not None else ""
    found = door.ask("GET", f"/admin/keys{asked}")["keys"]
    if not everything:
        found = [one for one in found if one["state"] != "revoked"]
    if as_json:
        click.echo(json.dumps({"keys": found}))
    else:
        click.echo("\n".join(lines(found)))


@keys_group.command()
@click.argument("name", metavar="KEY")
@door_options
@json_option
@version_option
def show(name: str, door: Door, as_json: bool) -> None:
    """Show one key: what it may do, and what it has spent."""
    found = door.ask("GET", _path(name))
    click.echo(json.dumps(found) if as_json else "\n".join(details(found)))


@keys_group.command(name="set")
@click.argument("name", metavar="KEY")
@click.option(
    "--lift",
    type=click.Choice(tuple(LIFTED)),
    multiple=True,
    help="Take this limit away; repeatable.",
)
@rights_options
@door_options
@json_option
@version_option
def set_(
    name: str,
    lift: tuple[str, ...],
    door: Door,
    as_json: bool,
    **rights: Any,
) -> None:
    """Change what a key may do, at once; what is not named stays.

    What it has spent stays spent: a cap is the whole balance or window, not what is left of it.
    """
    body = _given(rights) | {one.replace("-", "_"): LIFTED[one] for one in lift}
    if not body:
        raise click.UsageError("nothing to change; name a limit")
    found = door.ask("POST", _path(name), body)
    click.echo(json.dumps(found) if as_json else "\n".join(details(found)))


@keys_group.command()
@click.argument("name", metavar="KEY")
@click.option("--grace", type=SpanType(), default="0s", help="How long the old secret still works.")
@door_options
@json_option
@version_option
def rotate(name: str, grace: float, door: Door, as_json: bool) -> None:
    """Give a key another secret; it keeps its id, its rights and its budget."""
    made = door.ask("POST", f"{_path(name)}/rotate", {"grace_secs": grace})
    _print_secret(made, as_json, "rotated")


@keys_group.command()
@click.argument("name", metavar="KEY")
@door_options
@json_option
@version_option
def revoke(name: str, door: Door, as_json: bool) -> None:
    """End a key, at once and for good."""
    found = door.ask("POST", f"{_path(name)}/revoke")
    click.echo(json.dumps(found) if as_json else f"{found['key_id']} is revoked")


@keys_group.command()
@door_options
@json_option
@version_option
def accounts(door: Door, as_json: bool) -> None:
    """List accounts, their caps and their keys."""
    found = door.ask("GET", "/admin/accounts")
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [
        [a["account_id"], " ".join(map(cap_words, a["caps"])), " ".join(a["keys"])]
        for a in found["accounts"]
    ]
    click.echo("\n".join(table(("account", "caps", "keys"), rows)))


@keys_group.command()
@click.argument("name", metavar="ACCOUNT")
@click.option(
    "--cap",
    "caps",
    type=CapType(),
    multiple=True,
    help="As a key's, shared by all its keys; repeatable.",
)
@click.option("--uncapped", is_flag=True, help="Lift its caps.")
@door_options
@json_option
@version_option
def account(
    name: str,
    caps: tuple[dict[str, Any], ...],
    uncapped: bool,
    door: Door,
    as_json: bool,
) -> None:
    """Give ACCOUNT caps above its keys, at once; they replace the ones it has."""
    if bool(caps) == uncapped:
        raise click.UsageError("give either --cap or --uncapped")
    body = {"account_id": name, "caps": list(caps)}
    found = door.ask("POST", "/admin/accounts", body)
    shown = " ".join(map(cap_words, found["caps"])) or "uncapped"
    click.echo(json.dumps(found) if as_json else f"{found['account_id']}: {shown}")


def lines(keys: list[dict[str, Any]]) -> list[str]:
    """A table for people."""
    heads = ("key", "account", "state", "secret", "caps", "account caps", "limits", "expires",
             "note")  # fmt: skip
    rows = [
        [
            key["key_id"],
            key["account_id"],
            key["state"],
            " ".join(f"{prefix}…" for prefix in key["prefixes"])
            or ("cortex.toml" if key["source"] == "settings" else ""),
            " ".join(map(cap_words, key["caps"])),
            " ".join(map(cap_words, key["account_caps"])),
            limits(key),
            date_words(key["expires"]),
            key["note"],
        ]
        for key in keys
    ]
    return table(heads, rows, keep=3)


def limits(key: dict[str, Any]) -> str:
    """What binds a key beside tokens, in few words."""
    words = []
    if key["requests_per_minute"] is not None:
        words.append(f"{key['requests_per_minute']}/min")
    if key["max_concurrent"] is not None:
        words.append(f"{key['max_concurrent']} at once")
    if key["models"]:
        words.append("only " + ",".join(key["models"]))
    if not key["may_load"]:
        words.append("no loads")
    if key["admin"]:
        words.append("admin")
    return ", ".join(words)


def details(key: dict[str, Any]) -> list[str]:
    """One key, a line per thing."""
    pairs = [
        ("key", key["key_id"]),
        ("account", key["account_id"]),
        ("state", key["state"]),
        ("kept in", "cortex.toml" if key["source"] == "settings" else "the ledger"),
        ("secret", " ".join(f"{prefix}…" for prefix in key["prefixes"])),
        ("limits", limits(key)),
        ("priority", "" if key["priority"] is None else str(key["priority"])),
        ("created", date_words(key["created_at"])),
        ("expires", date_words(key["expires"])),
        ("revoked", date_words(key["revoked_at"])),
        ("note", key["note"]),
        *_spend(key.get("usage")),
    ]
    width = max(len(name) for name, _ in pairs)
    return [f"{name:<{width}}  {value}" for name, value in pairs if value]


def _spend(usage: dict[str, Any] | None) -> list[tuple[str, str]]:
    if usage is None:
        return []
    total = f"{usage['spent_tokens']:,} tokens, uncapped"
    if not usage.get("windows"):
        return [("spent", total)]
    shown = []
    for window in usage["windows"]:
        cap = cap_words({"tokens": window["hard_cap"], "window": window["window"]})
        whose = "account cap" if window.get("scope") == "account" else "cap"
        left = f"{window['spent_tokens']:,} spent, {window['available_tokens']:,} left"
        held = f", {window['open_tokens']:,} held" if window["open_tokens"] else ""
        shown.append((f"{whose} {cap}", left + held))
    return shown


def _given(rights: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in rights.items() if value not in (None, ())}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


def _path(name: str) -> str:
    # A whole secret must not get into a log of paths; its first letters find it.
    short = name[:SHOWN] if name.startswith("sk-hx-") else name
    return f"/admin/keys/{quote(short, safe='')}"


def _print_secret(made: dict[str, Any], as_json: bool, what: str) -> None:
    if as_json:
        click.echo(json.dumps(made))
        return
    dead = " It has expired already." if made.get("state") == "expired" else ""
    said = f"{made['key_id']} of {made['account_id']} {what}.{dead} Its secret is shown only now:"
    click.echo(said, err=True)
    click.echo(made["secret"])
