"""``helexa client-config``: a ready configuration for a client, from the live catalogue."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from helexa.cli.options import endpoint_options, version_option
from helexa.cli.recipes import RECIPES, Model, Setup


@click.command(name="client-config")
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.option("--model", help="Model to begin with.  [default: the first that is loaded]")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write this file instead."
)
@endpoint_options
@version_option
def client_config_command(
    name: str, model: str | None, output: Path | None, endpoint: str, key: str | None
) -> None:
    """Print a configuration for a client: its models, their limits and prices.

    What it contains comes from the gateway as it is now; ask again when the fleet changes.
    """
    recipe = RECIPES[name]
    setup = _setup(endpoint, key, model)
    text = recipe.write(setup)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text, private=recipe.keeps_key and key is not None)
    note = f"goes to: {recipe.goes_to}"
    if key and not recipe.keeps_key:
        note += f"; it reads the key from {recipe.reads_key}"
    click.echo(note, err=True)


def _setup(endpoint: str, key: str | None, wanted: str | None) -> Setup:
    """Ask the gateway what it serves."""
    listed = listed_models(endpoint, key)
    found = next((e for e in listed if e["id"] == wanted), None)
    if wanted is not None and found is None:
        known = ", ".join(entry["id"] for entry in listed)
        raise click.ClickException(f"{wanted!r} is not listed; the models are: {known}")
    first = found or next((e for e in listed if e.get("loaded")), listed[0])
    models = [Model.of(entry) for entry in listed]
    program = shutil.which("helexa") or "helexa"
    return Setup(_base(endpoint), key, models, Model.of(first), program)


def listed_models(endpoint: str, key: str | None) -> list[dict[str, Any]]:
    """The entries of ``/v1/models`` that can chat; at least one.

    Raises:
        click.ClickException: There is none, or the gateway does not say.
    """
    from helexa.cli.door import listed_by

    listed = [entry for entry in listed_by(endpoint, key) if _chats(entry)]
    if not listed:
        raise click.ClickException(
            f"{endpoint} lists no model that can chat; load one, or put one into its catalogue"
        )
    return listed


def _chats(entry: dict[str, Any]) -> bool:
    """A model that says nothing of itself yet is asleep, and may."""
    capabilities = entry.get("capabilities") or ()
    return not capabilities or "text" in capabilities


def _base(endpoint: str) -> str:
    from helexa.cli.remote import split_endpoint

    url = split_endpoint(endpoint)
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/').removesuffix('/v1')}"


def _write(path: Path, text: str, *, private: bool) -> None:
    """Write the file; never over another one."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "w") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; name another file, or remove it") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
