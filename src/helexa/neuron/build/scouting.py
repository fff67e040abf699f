"""What finds out about models before they are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from helexa.core.fleet import Limit
from helexa.neuron.build.engines import wishes
from helexa.neuron.build.sources import cache_dir
from helexa.neuron.engines.base import Engine, Host, Plan
from helexa.neuron.limits import derive
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.outlook import Foreteller
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.known import KnownFacts
from helexa.neuron.registry.scout import Scout
from helexa.neuron.settings import Clamps, NeuronSettings
from helexa.neuron.sources.listing import Listing
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
    settings: NeuronSettings,
    clamps: Clamps,
    scout: Scout,
    loaded: Callable[[], list[str]],
    environ: Mapping[str, str],
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
        disk=partial(room_for, settings, environ),
        loaded=loaded,
        headroom_mb=limits.activation_headroom_mb,
    )


def room_for(
    settings: NeuronSettings, environ: Mapping[str, str], listing: Listing
) -> tuple[Path, int] | None:
    """Where a hub's files go, and the bytes free there (blocking); None when that is not known."""
    given = settings.sources.get(listing.scheme)
    folder = given.cache_dir.expanduser() if given is not None and given.cache_dir else None
    folder = folder or cache_dir(listing.scheme, environ)
    for place in (folder, *folder.parents):  # it may have to be made yet
        try:
            return folder, shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
