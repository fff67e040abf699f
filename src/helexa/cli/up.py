"""``helexa up``: node, gateway and the built-in model on this machine, with no configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from helexa.cli.options import log_level_option, port_option, version_option


class OwnModel(click.ParamType[Any]):
    """A model to serve beside the built-in one."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from helexa.cli.generated import own_model

        try:
            return own_model(str(value))
        except FileNotFoundError as error:
            self.fail(str(error), param, ctx)


@click.command(name="up")
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=OwnModel())
@port_option(31313, what="Port of the gateway")
@port_option(13131, "--neuron-port", "Port of the node")
@port_option(31314, "--metrics-port", "Port of the Prometheus metrics")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where node and gateway keep their files.  [default: the user's state directory]",
)
@log_level_option
@version_option
def up_command(
    models: tuple[Any, ...],
    port: int | None,
    neuron_port: int | None,
    metrics_port: int | None,
    state_dir: Path | None,
    log_level: str,
) -> None:
    """Serve everything on this machine until Ctrl-C: gateway, node and the built-in model.

    MODEL is loaded beside it: a GGUF file or a folder on this machine, or org/name of Hugging
    Face (org/name:Q4_K_M for one of its quants), which is fetched.

    Without MODEL this needs no network, and never a settings file. Prints one line of JSON to
    stdout once the built-in model answers; logs go to stderr.
    """
    from helexa.cli.extras import need_engine

    need_engine("up")
    from helexa.cli.generated import Places
    from helexa.cli.household import Household

    places = Places(
        port=31313 if port is None else port,
        neuron_port=13131 if neuron_port is None else neuron_port,
        metrics_port=31314 if metrics_port is None else metrics_port,
        state_dir=state_dir,
        log_level=log_level,
        models=models,
    )
    raise SystemExit(Household(places).run())
