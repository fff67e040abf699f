"""``helexa ledger``: what can be asked of a ledger where it lies, also while a gateway uses it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from helexa.cli.options import config_option, json_option, version_option

NOT_PROVEN = 1


@click.group(name="ledger", context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def ledger_group() -> None:
    """Look after the ledger."""


@ledger_group.command(name="verify")
@config_option("/etc/cortex/cortex.toml")
@click.option("--url", help="The ledger itself, instead of the one that cortex.toml names.")
@json_option
@version_option
def verify_command(config: Path | None, url: str | None, as_json: bool) -> None:
    """Verify that the ledger adds up.

    Reads one snapshot, so a gateway may go on. Exit status: 0 proven, 1 not, 2 wrong settings,
    3 the ledger cannot be read.
    """
    import msgspec

    from helexa.cli.serve import COULD_NOT_START, WRONG_CONFIGURATION
    from helexa.core.settings import SettingsError
    from helexa.cortex.ledger.database import LedgerUnavailable, masked
    from helexa.cortex.ledger.verify import Proof

    try:
        where = url or _configured(config)
        proof = _proof(where)
    except SettingsError as error:
        click.echo(f"helexa ledger verify: {error}", err=True)
        raise SystemExit(WRONG_CONFIGURATION) from error
    except LedgerUnavailable as error:
        click.echo(f"helexa ledger verify: {error}", err=True)
        raise SystemExit(COULD_NOT_START) from error
    assert isinstance(proof, Proof)  # noqa: S101
    if as_json:
        click.echo(msgspec.json.encode(proof).decode())
    else:
        for check in proof.checks:
            click.echo(f"{'ok   ' if check.ok else 'FALSE'}  {check.name}")
            for fault in check.faults:
                click.echo(f"         {fault}")
        click.echo(
            f"{masked(where)}: {proof.spent:,} tokens spent in {proof.requests:,} requests, "
            f"{proof.held:,} held"
        )
    if not proof.ok:
        raise SystemExit(NOT_PROVEN)


def _configured(config: Path | None) -> str:
    from helexa.core.settings import SettingsError
    from helexa.cortex.ledger.opening import MEMORY, default_url
    from helexa.cortex.settings import load_settings

    url = load_settings(config, {}, os.environ).value.ledger.url or default_url(os.environ)
    if url == MEMORY:
        raise SettingsError("ledger.url is memory: and nothing is kept; there is nothing to verify")
    return url


def _proof(url: str) -> object:
    from helexa.cortex.ledger.database import LedgerUnavailable, connect, sqlite_path
    from helexa.cortex.ledger.verify import verify

    if url.startswith("sqlite:") and not Path(sqlite_path(url)).is_file():
        raise LedgerUnavailable(f"there is no ledger at {sqlite_path(url)}")
    db = connect(url)
    try:
        return verify(db)
    finally:
        db.close()
