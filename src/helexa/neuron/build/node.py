"""The node object with its registry, activation, events and records."""

from __future__ import annotations

import os
import sys
import time
from functools import partial

import msgspec

from helexa.core import build_info
from helexa.core.fleet import Download, LoadRequest, ModelEntry
from helexa.core.logging import Logger
from helexa.neuron.activation import Activator
from helexa.neuron.build.parts import Parts
from helexa.neuron.build.resident import assemble
from helexa.neuron.build.scouting import make_foreteller, make_scout
from helexa.neuron.build.sources import make_sources
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.events import Bus
from helexa.neuron.registry.loader import ModelLoader
from helexa.neuron.registry.scout import Scout
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.registry.table import Registry
from helexa.neuron.service import Node, on_the_wire
from helexa.neuron.settings import DefaultModel
from helexa.neuron.sources.sources import Sources
from helexa.neuron.sources.telling import Teller


def assemble_node(parts: Parts, log: Logger) -> Node[ServedModel]:
    """The node around ``parts``."""
    settings, loop = parts.settings, parts.loop
    found = make_sources(settings, log, os.environ)
    scout = make_scout(
        settings, found, parts.engines, parts.hardware.refresh, parts.experience, loop.time
    )
    loader = _loader(parts, scout)

    teller = Teller(log, sys.stderr if sys.stderr.isatty() else None, loop.time)

    def on_model(entry: ModelEntry) -> None:
        bus.publish("model", {"model": entry})

    def on_gone(model_id: str) -> None:
        parts.given_mb.pop(model_id, None)
        bus.publish("model", {"model": {"id": model_id, "status": "unloaded"}})

    def on_progress(
        model_id: str, fraction: float, eta_s: float | None, download: Download | None
    ) -> None:
        body = {"id": model_id, "progress": fraction, "eta_s": eta_s, "download": download}
        bus.publish("load_progress", body)
        teller.tell(model_id, download, eta_s)

    registry: Registry[ServedModel] = Registry(
        loader,
        on_model=on_model,
        on_gone=on_gone,
        on_progress=on_progress,
        unload_s=settings.life.unload_secs,
        clock=loop.time,
    )

    async def load(spec: LoadRequest) -> ModelEntry:
        return await registry.load(normalised(found, spec))

    activator = Activator(
        [_load_request(m) for m in settings.default_models],
        load,
        pauses=settings.life.retry_secs,
        clock=loop.time,
    )
    bus = Bus(
        int(time.time() * 1000),
        lambda: node.snapshot(),  # noqa: PLW0108 - the node is made after its bus
        plain=on_the_wire,
    )
    node = Node(
        name=parts.name,
        url=settings.url or "",
        build=build_info.load(os.environ),
        engines={
            name: engine.version() or "not installed" for name, engine in parts.engines.items()
        },
        registry=registry,
        activator=activator,
        bus=bus,
        records=parts.records,
        hardware=parts.hardware,
        clock=loop.time,
        started=loop.time(),
        normalise=lambda spec: normalised(found, spec),
        foreteller=make_foreteller(
            settings,
            parts.clamps,
            scout,
            lambda: [r.model_id for r in registry.residents()],
            os.environ,
        ),
        defaults=tuple(normalised(found, _load_request(m)) for m in settings.default_models),
    )
    return node


def _loader(parts: Parts, scout: Scout) -> ModelLoader:
    return ModelLoader(
        scout=scout,
        used_by=parts.hardware.used_by,
        assemble=partial(assemble, parts),
        experience=parts.experience,
        supervision=SupervisorSettings(start_deadline_s=parts.settings.life.load_secs),
        state_dir=parts.folder,
        clock=parts.loop.time,
    )


def _load_request(model: DefaultModel) -> LoadRequest:
    return LoadRequest(**msgspec.structs.asdict(model))


def normalised(found: Sources, spec: LoadRequest) -> LoadRequest:
    """``hf:org/name`` is served as ``org/name`` and loaded from ``hf``."""
    ref = found.parse(spec.model_id)
    if ref.scheme is None:
        return spec
    return msgspec.structs.replace(spec, model_id=ref.name, source=spec.source or ref.scheme)
