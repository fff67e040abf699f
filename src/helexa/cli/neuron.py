"""``helexa neuron``: the node of this host."""

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

if TYPE_CHECKING:
    from helexa.core.settings import Loaded
    from helexa.neuron.settings import NeuronSettings


@click.command(name="neuron")
@config_option("/etc/neuron/neuron.toml")
@port_option(13131)
@check_option
@log_level_option
@version_option
def neuron_command(config: Path | None, port: int | None, check: bool, log_level: str) -> None:
    """Serve this host's node until SIGTERM or Ctrl-C.

    Prints one line of JSON to stdout once it serves; logs go to stderr.
    """
    import os

    from helexa.cli import serve

    def load() -> Loaded[NeuronSettings]:
        return _load(config, port)

    application = serve.Application("neuron", load, _binds, _run)
    if check:
        from helexa.neuron.build.checking import check as checked

        serve.say_whether_it_would_start(application, lambda found: checked(found, os.environ))
        return
    serve.serve(application, log_level)


def _load(config: Path | None, port: int | None) -> Loaded[NeuronSettings]:
    import os

    from helexa.cli.extras import need_engine
    from helexa.core.settings import load
    from helexa.neuron.build.engines import harnesses
    from helexa.neuron.settings import DEFAULT_PATH, PREFIX, RESERVED, NeuronSettings

    loaded = load(
        NeuronSettings,
        prefix=PREFIX,
        path=config,
        default_path=DEFAULT_PATH,
        flags={"port": port},
        environ=os.environ,
        reserved=RESERVED,
    )
    need_engine("neuron", elsewhere=lambda: bool(harnesses(loaded.value, os.environ)))
    return loaded


def _binds(settings: NeuronSettings) -> list[Any]:
    import os

    from helexa.cli.serve import Bind
    from helexa.neuron.settings import bind_host

    host = bind_host(settings, settings.fleet.resolve(os.environ))
    return [Bind(host, settings.port, "--port")]


def _run(
    settings: NeuronSettings, announce: Callable[[dict[str, object]], None]
) -> Coroutine[Any, Any, None]:
    from helexa.cli.serve import say_ending
    from helexa.neuron.build import run

    return run(settings, announce=announce, ending=say_ending)
