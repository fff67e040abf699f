"""The node object with its registry, activation, events and records."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec

from helexa.core import build_info
from helexa.core.errors import HelexaError
from helexa.core.fleet import Download, LoadRequest, ModelEntry, ModelLoad
from helexa.core.logging import Logger
from helexa.core.settings import SettingsError
from helexa.neuron.activation import Activator
from helexa.neuron.build.parts import Parts
from helexa.neuron.build.resident import assemble
from helexa.neuron.build.scouting import make_foreteller, make_scout
from helexa.neuron.build.sources import make_sources
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.events import Bus
from helexa.neuron.registry.journal import Journal
from helexa.neuron.registry.loader import ModelLoader
from helexa.neuron.registry.scout import Scout
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.registry.table import Registry
from helexa.neuron.service import Node, on_the_wire
from helexa.neuron.settings import DefaultModel, NeuronSettings
from helexa.neuron.sources.sources import Sources
from helexa.neuron.sources.telling import Teller


def assemble_node(parts: Parts, log: Logger) -> Node[ServedModel]:
    """The node around ``parts``.

    Raises:
        SettingsError: A source or a boot-time model cannot be used.
    """
    settings, clock = parts.settings, parts.loop.time
    found = make_sources(settings, log, os.environ)
    scout = make_scout(
        settings, found, parts.engines, parts.hardware.refresh, parts.experience, clock
    )
    bus = Bus(
        int(time.time() * 1000),
        lambda: node.snapshot(),  # noqa: PLW0108 - the node is made after its bus
        plain=on_the_wire,
    )
    teller = Teller(log, sys.stderr if sys.stderr.isatty() else None, clock)
    news = _News(bus, teller, Journal(log, clock), lambda: registry.figures())  # noqa: PLW0108
    registry = _registry(parts, scout, news)
    node = _node(parts, found, scout, registry, bus)
    return node


class _News:
    """What the registry says of its models: to gateways by events, to people by the log."""

    def __init__(
        self, bus: Bus, teller: Teller, journal: Journal, figures: Callable[[], list[ModelLoad]]
    ) -> None:
        self._bus = bus
        self._teller = teller
        self._journal = journal
        self._figures = figures
        self.failed = journal.failed

    def changed(self, entry: ModelEntry) -> None:
        """A model is as ``entry`` says."""
        if entry.status == "loaded":  # who waits for it is let in by its seats
            figures = [figures for figures in self._figures() if figures.id == entry.id]
            self._bus.publish("admission", {"models": figures})
        self._bus.publish("model", {"model": entry})
        self._journal.changed(entry)

    def gone(self, model_id: str) -> None:
        """A model has been unloaded."""
        self._journal.gone(model_id)
        self._bus.publish("model", {"model": {"id": model_id, "status": "unloaded"}})

    def progress(
        self, model_id: str, fraction: float, eta_s: float | None, download: Download | None
    ) -> None:
        """How far a load is."""
        body = {"id": model_id, "progress": fraction, "eta_s": eta_s, "download": download}
        self._bus.publish("load_progress", body)
        self._teller.tell(model_id, download, eta_s)


def _registry(parts: Parts, scout: Scout, news: _News) -> Registry[ServedModel]:
    return Registry(
        _loader(parts, scout),
        on_model=news.changed,
        on_gone=news.gone,
        on_progress=news.progress,
        on_failed=news.failed,
        unload_s=parts.settings.life.unload_secs,
        clock=parts.loop.time,
    )


def _loader(parts: Parts, scout: Scout) -> ModelLoader:
    return ModelLoader(
        scout=scout,
        used_by=parts.hardware.used_by,
        assemble=partial(assemble, parts),
        experience=parts.experience,
        supervision=SupervisorSettings(start_deadline_s=parts.settings.life.load_secs),
        state_dir=parts.folder,
        clock=parts.loop.time,
        metrics=parts.metrics,
    )


def _activator(parts: Parts, found: Sources, registry: Registry[ServedModel]) -> Activator:
    """Loads what is to be there from the start."""

    async def load(spec: LoadRequest) -> ModelEntry:
        return await registry.load(normalised(found, spec))

    settings = parts.settings
    return Activator(
        [_load_request(m) for m in settings.default_models],
        load,
        pauses=settings.life.retry_secs,
        clock=parts.loop.time,
    )


def _node(
    parts: Parts, found: Sources, scout: Scout, registry: Registry[ServedModel], bus: Bus
) -> Node[ServedModel]:
    settings, clock = parts.settings, parts.loop.time
    versions = {name: engine.version() for name, engine in parts.engines.items()}
    return Node(
        name=parts.name,
        url=settings.url or "",
        build=build_info.load(os.environ),
        engines={name: version or "not installed" for name, version in versions.items()},
        registry=registry,
        activator=_activator(parts, found, registry),
        bus=bus,
        records=parts.records,
        hardware=parts.hardware,
        clock=clock,
        started=clock(),
        normalise=partial(normalised, found),
        foreteller=make_foreteller(
            settings,
            parts.clamps,
            scout,
            lambda: [resident.model_id for resident in registry.residents()],
            os.environ,
        ),
        defaults=boot_models(settings, found),
    )


def boot_models(settings: NeuronSettings, found: Sources) -> tuple[LoadRequest, ...]:
    """``[[default_models]]`` as they are to be loaded.

    Raises:
        SettingsError: One has no id or an unknown source, or is there twice.
    """
    made: dict[str, LoadRequest] = {}
    for index, model in enumerate(settings.default_models):
        where = f"default_models[{index}]"
        try:
            spec = normalised(found, _load_request(model))
        except HelexaError as error:
            raise SettingsError(f"{where}: {error.message}") from error
        if spec.model_id in made:
            raise SettingsError(f"{where}: {spec.model_id} is there already; leave one of them out")
        made[spec.model_id] = spec
    return tuple(made.values())


def _load_request(model: DefaultModel) -> LoadRequest:
    return LoadRequest(**msgspec.structs.asdict(model))


def normalised(found: Sources, spec: LoadRequest) -> LoadRequest:
    """``hf:org/name`` is served as ``org/name`` and loaded from ``hf``."""
    ref = found.parse(spec.model_id)
    if ref.scheme is None:
        return spec
    return msgspec.structs.replace(spec, model_id=ref.name, source=spec.source or ref.scheme)
