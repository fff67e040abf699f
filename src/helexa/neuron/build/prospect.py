"""An outlook without a node: this host, its settings, and no engine started."""

from __future__ import annotations

import os
import time

from helexa.core.fleet import LoadRequest
from helexa.core.logging import get_logger
from helexa.core.outlook import Outlook
from helexa.neuron.build.engines import harnesses, make_engines
from helexa.neuron.build.node import normalised
from helexa.neuron.build.scouting import make_foreteller, make_scout
from helexa.neuron.build.sources import make_sources
from helexa.neuron.hardware import Hardware
from helexa.neuron.registry.experience import Experience
from helexa.neuron.settings import NeuronSettings, clamps, state_dir


async def prospect(settings: NeuronSettings, spec: LoadRequest) -> Outlook:
    """What would become of ``spec`` on this host.

    Raises:
        SettingsError: A clamp in the environment is no number, an engine cannot be used.
        InvalidRequestBody: The id names a source that is not there.
    """
    environ = os.environ
    hardware = Hardware.of_this_host(
        environ, harnesses=harnesses(settings, environ), budget_mb=settings.memory.host_mb
    )
    try:
        sources = make_sources(settings, get_logger(), environ)
        scout = make_scout(
            settings,
            sources,
            make_engines(settings, hardware, environ),
            hardware.refresh,
            Experience(state_dir(settings, environ) / "experience.json"),
            time.monotonic,
        )
        teller = make_foreteller(settings, clamps(environ), scout, list, environ)
        return await teller.outlook(normalised(sources, spec))
    finally:
        hardware.stop()
