"""The node's life: it listens, says so, serves until it is told to stop, and drains."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from helexa.core.fleet import LocalSocket
from helexa.core.ids import IdSource, id_source
from helexa.core.logging import Logger, get_logger
from helexa.core.metrics import exposition
from helexa.neuron.build.node import assemble_node
from helexa.neuron.build.parts import Parts, gather
from helexa.neuron.engines.orphans import reap_previous
from helexa.neuron.exchange.desk import Desk
from helexa.neuron.housekeeping import forget, go_on, keep, tell_devices, tell_faults, tend
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.routes.inference import NodeApp
from helexa.neuron.routes.management import app as management_app
from helexa.neuron.service import Node
from helexa.neuron.settings import SOCKET, NeuronSettings, bind_host
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener
from helexa.relay.multiplex import VERSION
from helexa.relay.process import (
    collect_when_quiet,
    freeze_heap,
    raise_descriptor_limit,
    watch_lag,
)
from helexa.relay.request import Request
from helexa.wire import errors as wire

DISCONNECT_SECS = 2.0

Announce = Callable[[dict[str, object]], None]


def serve_app(node: Node[ServedModel], parts: Parts, desk: Desk) -> tuple[NodeApp, AsgiBridge]:
    """The app behind the listener."""
    metrics, log = parts.metrics, desk.log
    metrics.registry.before_collect(desk.books.flush)
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
    return NodeApp(desk, bridge, parts.secret, parts.other_secrets), bridge


def make_desk(node: Node[ServedModel], parts: Parts, log: Logger) -> Desk:
    """What exchanges share."""
    settings = parts.settings
    return Desk(
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


def look_after(node: Node[ServedModel], parts: Parts, log: Logger) -> list[asyncio.Task[None]]:
    """Everything that goes on beside the requests."""
    life, devices = parts.settings.life, parts.hardware.devices
    discovery = parts.hardware.discovery
    chores: dict[str, Callable[[], Awaitable[None]]] = {
        "activation": node.activator.run,
        "tend": lambda: tend(node, parts.changes, life.idle_ttl_secs),
        "devices": lambda: tell_devices(node.bus, devices),
        "faults": lambda: tell_faults(lambda: discovery().cuda_unavailable_reason, log),
        "records": lambda: keep(parts.records.sync),
        "lag": lambda: watch_lag(parts.metrics.lag.observe),
        "collect": lambda: collect_when_quiet(lambda: len(node.requests)),
        "forget": lambda: forget(lambda: parts.records.expire(life.record_secs), log),
    }
    return [
        asyncio.create_task(go_on(chore, what, log), name=what) for what, chore in chores.items()
    ]


async def warn_of(parts: Parts, host: str, log: Logger) -> None:
    """Say what an operator should know at the start; ends what an earlier life left."""
    if parts.secret is None:
        log.warning("no [fleet] secret: only this machine can reach the node", host=host)
    if parts.other_secrets:
        log.warning(
            "the secrets in further lines of secret_file are taken too; remove them once every "
            "gateway sends the first",
            secrets=len(parts.other_secrets),
        )
    if parts.hardware.fault is not None:
        log.warning(str(parts.hardware.fault))
    if parts.records.set_aside is not None:
        log.warning(
            "the request records of an earlier life cannot be read; what was not settled is lost",
            kept=str(parts.records.set_aside),
        )
    for orphan in await asyncio.to_thread(reap_previous, parts.folder):
        log.warning("ended an engine of an earlier life", model=orphan.model, pid=orphan.pid)


async def run(
    settings: NeuronSettings,
    *,
    announce: Announce,
    ending: Callable[[float], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain within bounds and leave nothing behind.

    Args:
        announce: Told once that the node serves, with its ``url``.
        ending: Told when the drain begins, with the most that it takes (seconds).

    Raises:
        OSError: The port is taken.
        SettingsError: The fleet secret or a clamp cannot be used.
    """
    stop = asyncio.Event()
    parts = gather(settings, os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        parts.loop.add_signal_handler(number, stop.set)
    log = get_logger(role="neuron", node=parts.name)
    hear_hang_ups(parts.loop, stop, log)
    raise_descriptor_limit()
    node = assemble_node(parts, log)
    desk = make_desk(node, parts, log)
    app, bridge = serve_app(node, parts, desk)
    limits = Limits(body_bytes=settings.max_body_mb << 20)
    may = app.may_multiplex if settings.multiplex else None
    listener = Listener(app, parts.wheel, parts.loop, limits, multiplexed=may, foresee=app.foresee)
    await listener.start(bind_host(settings, parts.secret), settings.port)
    await warn_of(parts, listener.host, log)
    node.url = settings.url or listener.url
    node.multiplex = VERSION if settings.multiplex else 0
    if settings.local_socket:
        node.socket = await local_socket(listener, parts.folder, desk.ids, log)
    parts.hardware.start()
    announce({"url": node.url})
    freeze_heap()
    background = look_after(node, parts, log)
    try:
        await stop.wait()
    finally:
        log.info("draining")
        ending(settings.life.drain_secs)
        for task in background:
            task.cancel()
        await shut_down(node, listener, bridge, settings)
        desk.books.flush()
        await asyncio.wait(background, timeout=1.0)
        parts.records.close()
        parts.hardware.stop()
    log.info("stopped")


def hear_hang_ups(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, log: Logger) -> None:
    """A terminal that closes ends its node in order; a service that is asked to read its settings
    again says that it does not, where the signal's default would cut every answer."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return  # ``nohup``
    what = "SIGHUP: a node reads its settings at its start only; restart it to change them"
    on_terminal = os.isatty(2)
    loop.add_signal_handler(signal.SIGHUP, stop.set if on_terminal else lambda: log.warning(what))


async def local_socket(
    listener: Listener, folder: Path, ids: IdSource, log: Logger
) -> LocalSocket | None:
    """Listen on a Unix socket in the state directory; a node that cannot does without."""
    path = (folder / SOCKET).absolute()
    try:
        await listener.start_local(path)
    except OSError as error:
        log.warning("no Unix socket for gateways on this machine", reason=str(error))
        return None
    return LocalSocket(str(path), ids("sock_"), listener.port)


async def shut_down(
    node: Node[ServedModel], listener: Listener, bridge: AsgiBridge, settings: NeuronSettings
) -> None:
    """Refuse, let finish, cut, end engines, close; every step has its own bound."""
    node.drain()
    await node.registry.close(settings.life.drain_secs)
    node.bus.close()
    await listener.drain(DISCONNECT_SECS)
    await bridge.close()
