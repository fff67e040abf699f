"""What finds out about models before they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from helexa.core.fleet import Limit
from helexa.neuron.build.engines import wishes
from helexa.neuron.engines.base import Engine, Host, Plan
from helexa.neuron.limits import derive
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.outlook import Foreteller
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.known import KnownFacts
from helexa.neuron.registry.scout import Scout
from helexa.neuron.settings import Clamps, NeuronSettings
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


def make_foreteller(
    settings: NeuronSettings, clamps: Clamps, scout: Scout, loaded: Callable[[], list[str]]
) -> Foreteller:
    """What says what would become of models.

    Args:
        loaded: Ids of what is loaded now.
    """
    limits = settings.context_limit

    def limit(facts: ModelFacts, plan: Plan, prefill_tok_s: float | None) -> Limit:
        rate = prefill_tok_s or limits.bootstrap_prefill_tok_per_sec
        return derive(facts, plan, limits, rate, clamps.max_prompt_tokens)

    return Foreteller(
        scout=scout,
        limit=limit,
        disk=lambda _listing: None,
        loaded=loaded,
        headroom_mb=limits.activation_headroom_mb,
    )
