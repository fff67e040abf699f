"""Wires the node: the only place that names concrete classes.

::

    settings ─▶ parts ─▶ listen ─▶ ready line ─▶ serve ─▶ SIGTERM ─▶ drain ─▶ nothing left
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from helexa import spark
from helexa.core import build_info
from helexa.core.errors import HelexaError
from helexa.core.fleet import Limit, LoadRequest, ModelEntry
from helexa.core.ids import id_source
from helexa.core.logging import Logger, get_logger
from helexa.core.metrics import exposition
from helexa.core.settings import Secret
from helexa.neuron.activation import Activator
from helexa.neuron.admission import Admission
from helexa.neuron.engines.base import Address, Engine, Served
from helexa.neuron.engines.llamacpp.build import LlamaCppBuild, inspect_build
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.orphans import reap_previous
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.events import Bus
from helexa.neuron.exchange.desk import Desk
from helexa.neuron.hardware import Hardware
from helexa.neuron.housekeeping import Changes, forget, keep, tell_devices, tend
from helexa.neuron.limits import FreeMemory, PrefillRate, derive, floors
from helexa.neuron.metrics import NeuronMetrics
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.sources import BuiltIn, LocalFiles, Source, Sources
from helexa.neuron.records import RecordTable
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.loader import ModelLoader, Running
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.registry.table import Registry
from helexa.neuron.routes.inference import NodeApp
from helexa.neuron.routes.management import app as management_app
from helexa.neuron.service import Node, on_the_wire
from helexa.neuron.settings import (
    Clamps,
    DefaultModel,
    NeuronSettings,
    bind_host,
    clamps,
    fleet_secret,
    state_dir,
)
from helexa.neuron.watchdog import Watchdog
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.process import collect_when_quiet, freeze_heap, raise_descriptor_limit
from helexa.relay.request import Request
from helexa.relay.wheel import Wheel
from helexa.wire import errors as wire

DISCONNECT_SECS = 2.0

Announce = Callable[[dict[str, object]], None]


@dataclass(slots=True)
class Parts:
    """What is made before anything listens."""

    settings: NeuronSettings
    clamps: Clamps
    secret: Secret | None
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

    def wishes(self, engine: str, spec: LoadRequest) -> dict[str, object]:
        """The operator's settings for ``engine`` and one load."""
        settings = self.settings
        wanted: dict[str, object] = {
            "devices": spec.devices,
            "max_devices": spec.tensor_parallel,
            "headroom_mb": settings.context_limit.activation_headroom_mb,
            "target_secs": settings.context_limit.target_prefill_latency_secs,
        }
        if engine == "llamacpp":
            llama = settings.engines.llamacpp
            wanted |= {name: getattr(llama, name) for name in llama.__struct_fields__}
            wanted["cache_ram_mb"] = settings.prefix_cache.budget_mb
        return {name: value for name, value in wanted.items() if value is not None}

    def assemble(self, running: Running) -> ServedModel:
        """The served model around an engine that answers."""
        settings, plan, facts = self.settings, running.plan, running.facts
        limits = settings.context_limit
        prefill = PrefillRate(running.prefill_tok_s or limits.bootstrap_prefill_tok_per_sec)

        def limit_at(prefill_tok_s: float) -> Limit:
            return derive(facts, plan, limits, prefill_tok_s, self.clamps.max_prompt_tokens)

        limit = limit_at(prefill.tok_s)

        def make_pool(address: Address) -> UpstreamPool:
            origin = Origin(address.host, address.port, address.uds)
            return UpstreamPool(origin, self.wheel, self.loop, limit=4 * plan.slots + 8)

        return ServedModel(
            spec=running.spec,
            engine=running.engine,
            process=running.process,
            facts=facts,
            plan=plan,
            served=Served(running.spec.model_id, facts, plan, limit.output),
            limit=limit,
            admission=Admission(
                plan.slots,
                plan.kv_cells,
                plan.context,
                settings.admission,
                self.loop.time,
                slice_tokens=settings.grants.slice_tokens // 2,
                changed=lambda: self.changes.figures.add(running.spec.model_id),
            ),
            prefill=prefill,
            watchdog=Watchdog(
                self.loop.time,
                plan.batch,
                lambda: prefill.tok_s,
                settings.life.watchdog_secs,
            ),
            pool=make_pool(running.address),
            metrics=self.metrics.model(running.spec.model_id),
            make_pool=make_pool,
            free_memory=self._free_memory_of(plan.devices),
            derive=limit_at,
            devices=list(plan.devices) or self._host_device(),
            relisted=lambda: self.changes.listings.add(running.spec.model_id),
            learned=running.learned,
            memory_mb=running.memory_mb,
            last_used=self.loop.time(),
        )

    def _host_device(self) -> list[int]:
        """The index a host without GPUs is listed under."""
        return [device.index for device in self.hardware.host().devices if device.kind == "cpu"]

    def _free_memory_of(self, devices: tuple[int, ...]) -> Callable[[], FreeMemory]:
        """Live free memory of the places a plan uses: its devices, or the host's."""

        def read() -> FreeMemory:
            host = self.hardware.host()
            if not devices:
                free, total = {-1: host.memory_free_mb}, {-1: host.memory_total_mb}
            else:
                free = {r.index: r.vram_free_mb for r in host.readings if r.index in devices}
                total = {d.index: d.vram_total_mb for d in host.devices if d.index in devices}
            least = self.clamps.min_free_vram_mb if devices else None
            return FreeMemory(free, floors(total, self.settings.context_limit, least))

        return read


def gather(settings: NeuronSettings, environ: Mapping[str, str]) -> Parts:
    """Make the parts; reads the environment and the state directory, starts nothing."""
    folder = state_dir(settings, environ)
    folder.mkdir(parents=True, exist_ok=True)
    loop = asyncio.get_running_loop()
    name = settings.name or socket.gethostname()
    limit = clamps(environ)
    hardware = Hardware.of_this_host(
        environ, harnesses=["llamacpp"], max_prompt_tokens=limit.max_prompt_tokens
    )
    llama = LlamaCpp(
        environ,
        _llama_build(hardware, environ),
        cpu_only=settings.engines.llamacpp.gpu_layers == 0,
    )
    return Parts(
        settings=settings,
        clamps=limit,
        secret=fleet_secret(settings.fleet, environ),
        folder=folder,
        name=name,
        hardware=hardware,
        metrics=NeuronMetrics(name),
        engines={llama.name: llama},
        experience=Experience(folder / "experience.json"),
        records=_open_records(folder),
        wheel=Wheel(loop),
        loop=loop,
    )


def _open_records(folder: Path) -> RecordTable:
    """The records of this and earlier lives.

    Raises:
        OSError: The folder cannot be written, or another node uses it.
    """
    try:
        return RecordTable(folder / "requests.records", clock=time.time)
    except HelexaError as error:
        raise OSError(error.message) from error


def _llama_build(hardware: Hardware, environ: Mapping[str, str]) -> LlamaCppBuild | None:
    """What the wheel was built for only matters where there is a GPU; asking takes a moment."""
    gpus = [device for device in hardware.host().devices if device.kind != "cpu"]
    return inspect_build(environ) if gpus else None


def sources(settings: NeuronSettings, log: Logger) -> Sources:
    """Where model files come from: the package and this machine's disks; hubs come later."""
    known: dict[str, Source] = {
        "builtin": BuiltIn({spark.MODEL_ID: spark.gguf_path()}),
        "file": LocalFiles(),
    }
    wanted = {*settings.sources, *filter(None, [settings.default_source])}
    for scheme in sorted(wanted - set(known)):
        log.warning("this build has no such source; its models are not found", source=scheme)
    default = settings.default_source
    return Sources(known, default if default in known else "file")


def assemble_node(parts: Parts, log: Logger) -> Node[ServedModel]:
    """The node object with its registry, events and records."""
    settings, loop = parts.settings, parts.loop
    found = sources(settings, log)
    loader = ModelLoader(
        engines=parts.engines,
        sources=found,
        host=parts.hardware.refresh,
        used_by=parts.hardware.used_by,
        inspect=inspect,
        wishes=parts.wishes,
        assemble=parts.assemble,
        experience=parts.experience,
        supervision=SupervisorSettings(start_deadline_s=settings.life.load_secs),
        state_dir=parts.folder,
        clock=loop.time,
    )

    def on_model(entry: ModelEntry) -> None:
        bus.publish("model", {"model": entry})

    def on_gone(model_id: str) -> None:
        bus.publish("model", {"model": {"id": model_id, "status": "unloaded"}})

    def on_progress(model_id: str, fraction: float, eta_s: float | None) -> None:
        bus.publish("load_progress", {"id": model_id, "progress": fraction, "eta_s": eta_s})

    registry: Registry[ServedModel] = Registry(
        loader,
        on_model=on_model,
        on_gone=on_gone,
        on_progress=on_progress,
        unload_s=settings.life.unload_secs,
        clock=loop.time,
    )

    async def load(spec: LoadRequest) -> ModelEntry:
        return await registry.load(_normalised(found, spec))

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
        normalise=lambda spec: _normalised(found, spec),
    )
    return node


def _load_request(model: DefaultModel) -> LoadRequest:
    return LoadRequest(**msgspec.structs.asdict(model))


def _normalised(found: Sources, spec: LoadRequest) -> LoadRequest:
    """``hf:org/name`` is served as ``org/name`` and loaded from ``hf``."""
    ref = found.parse(spec.model_id)
    if ref.scheme is None:
        return spec
    return msgspec.structs.replace(spec, model_id=ref.name, source=spec.source or ref.scheme)


def serve_app(node: Node[ServedModel], parts: Parts, desk: Desk) -> tuple[NodeApp, AsgiBridge]:
    """The app behind the listener."""
    metrics, log = parts.metrics, desk.log
    metrics.registry.before_collect(
        lambda: metrics.collect(
            node.registry.figures(),
            node.hardware.devices(),
            len(node.requests),
            parts.records.lost,
        )
    )

    def on_error(request: Request, error: Exception) -> tuple[bytes, bytes]:
        request_id = desk.ids("req_")
        log.error("bug", request_id=request_id, path=request.decoded_path, error=repr(error))
        rendered = wire.render(wire.internal_error(request_id), "openai")
        return rendered.lines, rendered.body

    async def render(model_id: str, body: bytes) -> str:
        return await node.registry.serving(model_id).render(body)

    app = management_app(node, lambda: exposition(metrics.registry), desk.ids, render)
    bridge = AsgiBridge(app, on_error)
    return NodeApp(desk, bridge, parts.secret), bridge


async def run(settings: NeuronSettings, *, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain within bounds and leave nothing behind.

    Args:
        announce: Told once that the node serves, with its ``url``.

    Raises:
        OSError: The port is taken.
        SettingsError: The fleet secret or a clamp cannot be used.
    """
    stop = asyncio.Event()
    parts = gather(settings, os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        parts.loop.add_signal_handler(number, stop.set)
    log = get_logger(role="neuron", node=parts.name)
    raise_descriptor_limit()
    node = assemble_node(parts, log)
    desk = Desk(
        node=node,
        records=parts.records,
        metrics=parts.metrics,
        wheel=parts.wheel,
        loop=parts.loop,
        grants=settings.grants,
        commit_s=settings.commit_ms / 1000,
        ids=id_source(),
        log=log,
    )
    app, bridge = serve_app(node, parts, desk)
    limits = Limits(body_bytes=settings.max_body_mb << 20)
    listener = Listener(app, parts.wheel, parts.loop, limits)
    await listener.start(bind_host(settings, parts.secret), settings.port)
    if parts.secret is None:
        log.warning("no [fleet] secret: only this machine can reach the node", host=listener.host)
    if parts.hardware.fault is not None:
        log.warning(str(parts.hardware.fault))
    for orphan in await asyncio.to_thread(reap_previous, parts.folder):
        log.warning("ended an engine of an earlier life", model=orphan.model, pid=orphan.pid)
    node.url = settings.url or listener.url
    parts.hardware.start()
    announce({"url": node.url})
    freeze_heap()
    background = [
        asyncio.create_task(node.activator.run(), name="activation"),
        asyncio.create_task(tend(node, parts.changes, settings.life.idle_ttl_secs), name="tend"),
        asyncio.create_task(tell_devices(node.bus, parts.hardware.devices), name="devices"),
        asyncio.create_task(keep(parts.records.sync), name="records"),
        asyncio.create_task(collect_when_quiet(lambda: len(node.requests)), name="collect"),
        asyncio.create_task(
            forget(lambda: parts.records.expire(settings.life.record_secs), log), name="forget"
        ),
    ]
    try:
        await stop.wait()
    finally:
        log.info("draining")
        for task in background:
            task.cancel()
        await shut_down(node, listener, bridge, settings)
        await asyncio.wait(background, timeout=1.0)
        parts.records.close()
        parts.hardware.stop()
    log.info("stopped")


async def shut_down(
    node: Node[ServedModel], listener: Listener, bridge: AsgiBridge, settings: NeuronSettings
) -> None:
    """Refuse, let finish, cut, end engines, close; every step has its own bound."""
    node.drain()
    await node.registry.close(settings.life.drain_secs)
    node.bus.close()
    await listener.drain(DISCONNECT_SECS)
    await bridge.close()
