"""``helexa acp``: the fleet as a coding agent in editors that speak the Agent Client Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO, cast

import click

from helexa.cli.options import LOG_LEVELS, config_option, json_option, version_option


@click.command(name="acp")
@config_option("$XDG_CONFIG_HOME/helexa-acp/config.toml")
@click.option("--doctor", is_flag=True, help="Check the settings, and ask for one test answer.")
@json_option
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="warning",
    show_default=True,
    help="Lowest level that is logged.",
)
@version_option
def acp_command(config: Path | None, doctor: bool, as_json: bool, log_level: str) -> None:
    """Serve one editor on stdin and stdout; editors start this themselves.

    Without a settings file it uses the gateway of this machine (http://127.0.0.1:31313/v1).
    Logs go to stderr, or to the file that HELEXA_ACP_LOG_FILE names.
    """
    import os
    import sys

    from helexa.acp.settings import load_settings
    from helexa.core.settings import SettingsError

    try:
        loaded = load_settings(config, os.environ)
    except SettingsError as error:
        click.echo(f"helexa acp: {error}", err=True)
        raise SystemExit(2) from error
    if doctor:
        _doctor(loaded, as_json)
    if sys.stdin.isatty():
        click.echo(
            "helexa acp: an editor should start this and speak to it on stdin; "
            "`helexa acp --doctor` tests the settings, Ctrl-D ends this",
            err=True,
        )
    _serve(loaded.value, log_level)


def _doctor(loaded: Any, as_json: bool) -> None:
    import asyncio
    import os

    import msgspec

    from helexa.acp.doctor import examine, lines

    shown = str(loaded.path) if loaded.path is not None else "none; defaults and the environment"
    found = asyncio.run(examine(loaded.value, shown, os.environ))
    click.echo(msgspec.json.encode(found).decode() if as_json else "\n".join(lines(found)))
    raise SystemExit(0 if found.ok else 1)


def _serve(settings: Any, log_level: str) -> None:
    import asyncio
    import contextlib
    import os
    import sys

    from helexa.acp.build import run
    from helexa.core import build_info, logging

    file = os.environ.get("HELEXA_ACP_LOG_FILE")
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(_log_file(file)) if file else sys.stderr
        sink = logging.configure(log_level, out)
        try:
            asyncio.run(run(settings, os.environ, build_info.load(os.environ).package_version))
        except KeyboardInterrupt:
            pass
        finally:
            sink.close()


def _log_file(path: str) -> TextIO:
    try:
        return cast("TextIO", Path(path).expanduser().open("a", encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"HELEXA_ACP_LOG_FILE: {path}: {error.strerror}") from error
