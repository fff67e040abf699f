"""``helexa doctor``: what this host has and what to mend; of a model, whether it would run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helexa.cli.options import config_option, json_option, version_option

if TYPE_CHECKING:
    from helexa.core.outlook import Outlook
    from helexa.neuron.settings import NeuronSettings

ASK_S = 120.0
_PLAN = "/models/plan"


@click.command(name="doctor")
@click.argument("model", required=False)
@click.option("--quant", help="Of several in one repository, such as Q4_K_M.")
@click.option("--source", help="Where it is from: a scheme of neuron.toml, or a path.")
@click.option("--harness", help="The engine that is to run it.  [default: whichever suits]")
@click.option("--endpoint", help="Ask this node instead of looking at this host.")
@click.option("--key", envvar="HELEXA_KEY", show_envvar=True, help="The fleet secret of the node.")
@config_option("/etc/neuron/neuron.toml")
@json_option
@version_option
def doctor_command(
    model: str | None,
    quant: str | None,
    source: str | None,
    harness: str | None,
    endpoint: str | None,
    key: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Print hardware, drivers and engines of this host, and the command that fixes what is wrong.
    The engines are llama.cpp, vLLM where it is found, and the commands of neuron.toml.

    With MODEL: would it run here, on which engine and why, with how much memory, context and
    slots, and how long would its download take? If it would not run, what would? Only headers are
    fetched, and nothing is loaded.

    Exit status 1 when something needs fixing, or the model would not run.
    """
    if model is None:
        if quant or source or harness or endpoint:
            raise click.UsageError("--quant, --source, --harness and --endpoint are about a MODEL; "
                                   "name one.")  # fmt: skip
        raise SystemExit(_check_up(config, as_json=as_json))
    body = {"model_id": model, "quant": quant, "source": source, "harness": harness}
    given = {name: value for name, value in body.items() if value is not None}
    if endpoint is not None and config is not None:
        raise click.UsageError("--config is about this host; a node has its own settings.")
    told = _here(given, config) if endpoint is None else _there(given, endpoint, key)
    click.echo(_text(told, as_json=as_json), nl=False)
    raise SystemExit(0 if told.ok else 1)


def _check_up(config: Path | None, *, as_json: bool) -> int:
    """Print what was found on this host; 1 when something needs mending."""
    import os

    import msgspec

    from helexa.core.settings import SettingsError
    from helexa.neuron.build.checkup import check_up
    from helexa.neuron.doctor import render
    from helexa.neuron.settings import NeuronSettings

    try:
        settings = _settings(config)
    except SettingsError as error:
        if config is not None:
            raise click.UsageError(str(error)) from error
        settings = NeuronSettings()  # a file that does not load is the node's own business
    found = check_up(settings, os.environ)
    text = msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"
    click.echo(text if as_json else render(found), nl=False)
    return 0 if found.ok else 1


def _settings(config: Path | None) -> NeuronSettings:
    """Of this host's node.

    Raises:
        SettingsError: They cannot be used.
    """
    import os

    from helexa.core.settings import load
    from helexa.neuron.settings import DEFAULT_PATH, PREFIX, RESERVED, NeuronSettings

    return load(
        NeuronSettings, prefix=PREFIX, path=config, default_path=DEFAULT_PATH, flags={},
        environ=os.environ, reserved=RESERVED,
    ).value  # fmt: skip


def _here(body: dict[str, str], config: Path | None) -> Outlook:
    """This host's own answer."""
    import asyncio

    import msgspec

    from helexa.core.errors import HelexaError
    from helexa.core.fleet import LoadRequest
    from helexa.core.settings import SettingsError
    from helexa.neuron.build.prospect import prospect

    try:
        return asyncio.run(prospect(_settings(config), msgspec.convert(body, LoadRequest)))
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except HelexaError as error:
        raise click.UsageError(error.message) from error


def _there(body: dict[str, str], endpoint: str, key: str | None) -> Outlook:
    """A node's answer."""
    import msgspec

    from helexa.cli.door import refusal
    from helexa.cli.remote import Unreachable, ask
    from helexa.core.outlook import Outlook

    try:
        status, answer = ask(endpoint, "POST", _PLAN, body, key=key, timeout=ASK_S)
    except Unreachable as error:
        if not isinstance(error.__cause__, ConnectionRefusedError):
            raise
        raise Unreachable(
            f"nothing listens at {endpoint} (connection refused): is `helexa neuron` running "
            "there, and is this its port? Without a [fleet] secret it listens on 127.0.0.1 only."
        ) from error
    if status in (404, 405):
        raise click.ClickException(
            f"{endpoint} cannot say what would load there: it is not a node, or an older one. Name "
            "a node's own address, such as http://host:13131."
        )
    if status != 200:
        raise click.ClickException(refusal(status, answer))
    try:
        return msgspec.json.decode(answer, type=Outlook)
    except msgspec.DecodeError as error:
        raise Unreachable(f"{endpoint} does not answer like a node: {error}") from error


def _text(told: Outlook, *, as_json: bool) -> str:
    if as_json:
        import msgspec

        return msgspec.json.format(msgspec.json.encode(told)).decode() + "\n"
    from helexa.cli.outlook import render

    return render(told, draws="utf" in str(getattr(sys.stdout, "encoding", "")).lower())
