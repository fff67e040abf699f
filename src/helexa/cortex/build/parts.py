"""What every room of the gateway is made with; nothing here listens or connects."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from helexa.core.logging import Logger, get_logger
from helexa.cortex.fleet.client import Trust
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.settings import CortexSettings, split_listen
from helexa.relay.outbox import Outbox
from helexa.relay.wheel import Wheel


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts.

    Args:
        name: Ours among gateways.
        epoch: Our life, in milliseconds since 1970.
        port: The configured one; 0 is a port of the system's choice.
    """

    settings: CortexSettings
    environ: Mapping[str, str]
    loop: asyncio.AbstractEventLoop
    name: str
    epoch: int
    port: int
    trust: Trust
    wheel: Wheel
    outbox: Outbox
    metrics: CortexMetrics
    log: Logger


def gather(
    settings: CortexSettings, loop: asyncio.AbstractEventLoop, environ: Mapping[str, str]
) -> Parts:
    """Make the parts.

    Raises:
        SettingsError: The fleet secret cannot be read.
    """
    epoch = time.time_ns() // 1_000_000
    port = split_listen(settings.gateway.listen)[1]
    # With a port of the system's choice nothing tells us from our neighbours but our process.
    name = f"{socket.gethostname()}-{port or f'process-{os.getpid()}'}"
    secret = settings.fleet.resolve(environ)
    return Parts(
        settings=settings,
        environ=environ,
        loop=loop,
        name=name,
        epoch=epoch,
        port=port,
        trust=Trust(f"{name}/{epoch}", secret.reveal() if secret is not None else None),
        wheel=Wheel(loop),
        outbox=Outbox(loop),
        metrics=CortexMetrics(),
        log=get_logger(),
    )
