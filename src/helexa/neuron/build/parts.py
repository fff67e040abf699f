"""What is made before anything listens."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helexa.core.errors import HelexaError
from helexa.core.settings import Secret
from helexa.neuron.build.engines import harnesses, make_engines
from helexa.neuron.engines.base import Engine
from helexa.neuron.hardware import Hardware
from helexa.neuron.housekeeping import Changes
from helexa.neuron.metrics import NeuronMetrics
from helexa.neuron.records import RecordTable
from helexa.neuron.registry.experience import Experience
from helexa.neuron.settings import Clamps, NeuronSettings, clamps, state_dir
from helexa.relay.wheel import Wheel


@dataclass(slots=True)
class Parts:
    """The parts; they start nothing."""

    settings: NeuronSettings
    clamps: Clamps
    secret: Secret | None
    other_secrets: tuple[Secret, ...]
    folder: Path
    name: str
    hardware: Hardware
    metrics: NeuronMetrics
    engines: Mapping[str, Engine]
    experience: Experience
    records: RecordTable
    wheel: Wheel
    loop: asyncio.AbstractEventLoop
    changes: Changes = field(default_factory=Changes)
    given_mb: dict[str, int] = field(default_factory=dict)
    """Host memory that was planned for each loaded model (MiB)."""


def gather(settings: NeuronSettings, environ: Mapping[str, str]) -> Parts:
    """Make the parts; reads the environment and the state directory.

    Raises:
        OSError: The state directory cannot be written, or another node uses it.
        SettingsError: The fleet secret or a clamp cannot be used.
    """
    folder = state_dir(settings, environ)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise OSError(
            f"the state directory {folder} cannot be used: {why}; set state_dir to a folder that "
            "this user may write to"
        ) from error
    loop = asyncio.get_running_loop()
    name = settings.name or socket.gethostname()
    limit = clamps(environ)
    hardware = Hardware.of_this_host(
        environ,
        harnesses=harnesses(settings, environ),
        max_prompt_tokens=limit.max_prompt_tokens,
        budget_mb=settings.memory.host_mb,
    )
    given: dict[str, int] = {}
    hardware.held_mb = lambda: sum(tuple(given.values()))
    return Parts(
        settings=settings,
        clamps=limit,
        secret=settings.fleet.resolve(environ),
        other_secrets=settings.fleet.others(),
        folder=folder,
        name=name,
        hardware=hardware,
        metrics=NeuronMetrics(name),
        engines=make_engines(settings, hardware, environ),
        experience=Experience(folder / "experience.json"),
        records=_open_records(folder),
        wheel=Wheel(loop),
        loop=loop,
        given_mb=given,
    )


def _open_records(folder: Path) -> RecordTable:
    """The records of this and earlier lives."""
    try:
        return RecordTable(folder / "requests.records", clock=time.time)
    except HelexaError as error:
        raise OSError(error.message) from error
