"""``helexa doctor``: what the node side found out about this host."""

from __future__ import annotations

import click

from helexa.cli.options import json_option, version_option


@click.command(name="doctor")
@json_option
@version_option
def doctor_command(as_json: bool) -> None:
    """Print hardware, drivers and engines of this host, and the command that mends a mismatch.

    Exit status 1 when something needs mending.
    """
    from helexa.neuron import doctor

    raise SystemExit(doctor.main(as_json=as_json))
