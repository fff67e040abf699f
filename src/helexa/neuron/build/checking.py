"""``helexa neuron --check``: would a node start with these settings? Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping

from helexa.core.logging import get_logger
from helexa.neuron.build.engines import command_engines, harnesses
from helexa.neuron.build.sources import make_sources
from helexa.neuron.settings import NeuronSettings, bind_host, clamps


def check(settings: NeuronSettings, environ: Mapping[str, str]) -> str:
    """What they set up, in words.

    Raises:
        SettingsError: What would stop a start: the settings, a secret, a command, a source.
    """
    clamps(environ)
    host = bind_host(settings, settings.fleet.resolve(environ))
    command_engines(settings, environ)
    make_sources(settings, get_logger(), environ)
    engines = ", ".join(harnesses(settings, environ))
    return f"listens on {host}, engines {engines}, {len(settings.default_models)} models at boot"
