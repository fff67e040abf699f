"""Wires the agent: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping

from helexa.acp.agent import Agent
from helexa.acp.catalogue import Catalogue
from helexa.acp.protocol.rpc import Peer
from helexa.acp.protocol.stdio import open_stdio
from helexa.acp.providers.http import HttpProvider
from helexa.acp.sessions.store import SessionStore, sessions_folder
from helexa.acp.settings import AcpSettings
from helexa.core.logging import get_logger


def catalogue(settings: AcpSettings, environ: Mapping[str, str]) -> Catalogue:
    """Every endpoint of the settings."""
    providers = {e.name: HttpProvider(e, e.key(environ)) for e in settings.endpoints}
    unset = {
        e.name: e.api_key_env
        for e in settings.endpoints
        if e.api_key_env is not None and e.key(environ) is None
    }
    return Catalogue(settings, providers, unset)


async def run(settings: AcpSettings, environ: Mapping[str, str], version: str) -> None:
    """Speak the protocol on stdio until the editor closes it, or ends the agent.

    Either way what was said is stored, and a command that runs ends with the agent.
    """
    log = get_logger(role="acp")
    lines, out = await open_stdio()
    agent = Agent(
        settings,
        catalogue(settings, environ),
        SessionStore(sessions_folder(environ)),
        version,
        log,
    )
    peer = Peer(out, agent.requests(), agent.notifications(), log)
    agent.connect(peer)
    speaking = asyncio.ensure_future(peer.run(lines))
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, speaking.cancel)
    try:
        await asyncio.wait([speaking])
        if not speaking.cancelled():
            speaking.result()
    finally:
        speaking.cancel()
        await agent.aclose()
        await out.drain()
