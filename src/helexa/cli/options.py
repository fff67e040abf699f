"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LOG_LEVELS = ("debug", "info", "warning", "error")


class Port(click.ParamType[int]):
    """0 to 65535, shown as ``PORT``."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and int(text) <= 65535):
            self.fail(f"{text!r} is not a port; give a number from 0 to 65535", param, ctx)
        return int(text)


def version_option(command: F) -> F:
    """``--version``: package version, commit and whether the tree was dirty."""
    option = click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show version and commit.",
    )
    return option(command)


def _print_version(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
    if not value or ctx.resilient_parsing:
        return
    import os

    from helexa.core import build_info

    click.echo(build_info.load(os.environ).one_line())
    ctx.exit()


def config_option(default: str) -> Callable[[F], F]:
    """``--config FILE``; ``default`` is shown in the help."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        help=f"Settings file; must exist.  [default: {default}]",
    )


def port_option(default: int, name: str = "--port", what: str = "Port") -> Callable[[F], F]:
    """A port; 0 takes any free one."""
    return click.option(
        name, type=Port(), help=f"{what}; 0 takes any free one.  [default: {default}]"
    )


check_option = click.option("--check", is_flag=True, help="Check the settings, and start nothing.")

log_level_option = click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
    help="Lowest level that is logged to stderr.",
)


def endpoint_options(command: F) -> F:
    """``--endpoint`` and ``--key`` of commands that ask a running gateway."""
    command = click.option(
        "--key", envvar="HELEXA_KEY", show_envvar=True, help="API key to ask with."
    )(command)
    return click.option(
        "--endpoint",
        envvar="HELEXA_ENDPOINT",
        default="http://127.0.0.1:31313",
        show_default=True,
        show_envvar=True,
        help="Base URL of the gateway.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
