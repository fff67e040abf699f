"""What finds out about models before they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from helexa.neuron.build.engines import wishes
from helexa.neuron.engines.base import Engine, Host
from helexa.neuron.models.inspect import inspect
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.known import KnownFacts
from helexa.neuron.registry.scout import Scout
from helexa.neuron.settings import NeuronSettings
from helexa.neuron.sources.sources import Sources


def make_scout(
    settings: NeuronSettings,
    sources: Sources,
    engines: Mapping[str, Engine],
    host: Callable[[], Host],
    experience: Experience,
    clock: Callable[[], float],
) -> Scout:
    """The scout of a node, or of a doctor without one.

    Args:
        host: A fresh snapshot of the host (blocking).
        clock: Seconds, monotonic.
    """
    return Scout(
        sources=sources,
        known=KnownFacts(sources, inspect, clock),
        engines=engines,
        host=host,
        wishes=partial(wishes, settings),
        experience=experience,
        listed={name: engine.models for name, engine in settings.engines.command.items()},
    )
