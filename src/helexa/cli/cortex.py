"""``helexa cortex``, and the ``cortex`` script with ``serve`` and ``status``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helexa.cli.options import (
    check_option,
    config_option,
    log_level_option,
    port_option,
    version_option,
)
from helexa.cli.status import status_command

if TYPE_CHECKING:
    from helexa.core.settings import Loaded
    from helexa.cortex.settings import CortexSettings


@click.command(name="cortex")
@config_option("/etc/cortex/cortex.toml")
@port_option(31313)
@port_option(31314, "--metrics-port", "Port of the Prometheus metrics")
@check_option
@log_level_option
@version_option
def serve_command(
    config: Path | None, port: int | None, metrics_port: int | None, check: bool, log_level: str
) -> None:
    """Serve the gateway until SIGTERM or Ctrl-C.

    Prints one line of JSON to stdout once it serves; logs go to stderr.
    """
    import os

    from helexa.cli import serve

    def load() -> Loaded[CortexSettings]:
        return _load(config, port, metrics_port)

    def run(
        settings: CortexSettings, announce: Callable[[dict[str, object]], None]
    ) -> Coroutine[Any, Any, None]:
        from helexa.cortex.build import run
        from helexa.cortex.settings import DEFAULT_PATH

        path = config or DEFAULT_PATH
        return run(
            settings,
            announce=announce,
            path=path,
            again=lambda: load().value,
            ending=serve.say_ending,
        )

    application = serve.Application("cortex", load, _binds, run)
    if check:
        from helexa.cortex.build.checking import check as checked

        serve.say_whether_it_would_start(application, lambda found: checked(found, os.environ))
        return
    serve.serve(application, log_level)


@click.group(name="cortex", context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def cortex_script() -> None:
    """The helexa gateway."""


cortex_script.add_command(serve_command, "serve")
cortex_script.add_command(status_command, "status")


def _load(config: Path | None, port: int | None, metrics_port: int | None) -> Loaded[Any]:
    import os

    import msgspec

    from helexa.cli.serve import with_port
    from helexa.core.settings import Loaded
    from helexa.cortex.settings import load_settings

    loaded = load_settings(config, {}, os.environ)
    gateway = msgspec.structs.replace(
        loaded.value.gateway,
        listen=with_port(loaded.value.gateway.listen, port),
        metrics_listen=with_port(loaded.value.gateway.metrics_listen, metrics_port),
    )
    settings = msgspec.structs.replace(loaded.value, gateway=gateway)
    return Loaded(settings, loaded.warnings, loaded.path)


def _binds(settings: CortexSettings) -> list[Any]:
    from helexa.cli.serve import Bind
    from helexa.cortex.settings import split_listen

    return [
        Bind(*split_listen(settings.gateway.listen), "--port"),
        Bind(*split_listen(settings.gateway.metrics_listen), "--metrics-port"),
    ]
