"""Loads, unloads and readings on real nodes.

Whether a model is there is read in the fleet's snapshot: what everybody else decides upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from helexa.core.errors import (
    HelexaError,
    InsufficientVram,
    ModelLoading,
    ServiceUnavailable,
    UpstreamFailed,
)
from helexa.core.fleet import Health, LoadRequest
from helexa.cortex.fleet.client import Answer, NodeApi
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState
from helexa.cortex.profiles import Profile
from helexa.cortex.standing import refusal
from helexa.wire.bodies import UNREADABLE
from helexa.wire.errors import from_wire

CALL_TIMEOUT_S = 10.0
UNLOAD_TIMEOUT_S = 120.0
RETRY_S = 10.0
APPEAR_S = 15.0


class InUse(Exception):
    """The model is in use on its node, and stays."""


class NodeEffects:
    """What residency does to nodes.

    Args:
        fleet: Watched for how loads go.
        ours: How many of our own requests are at (node, model).
        max_load_s: A load that takes longer is given up on (the node may still finish it).
    """

    def __init__(
        self, fleet: Fleet, ours: Callable[[str, str], int], *, max_load_s: float = 600.0
    ) -> None:
        self._fleet = fleet
        self._ours = ours
        self._max_load_s = max_load_s

    async def load(self, profile: Profile, node: str) -> None:
        """Return when the node lists the model as loaded.

        The node's answer is this load's own outcome; a connection that breaks meanwhile changes
        nothing about the load, so then its listing counts.

        Raises:
            HelexaError: It refused, failed, vanished, or took too long.
        """
        api = self._api(node)
        try:
            answer = await api.post("/models/load", load_request(profile), self._max_load_s)
        except UpstreamFailed as broken:
            if _lost(self._fleet.snapshot(), node):
                raise _failure(profile.id, node, None, lost=True) from broken
        else:
            if answer.status >= 300:
                error = refusal(profile.id, node, answer, RETRY_S)
                if isinstance(error, InsufficientVram):
                    await self._forget(api, profile.id)
                self._fleet.poll_now(node)
                raise error
        self._fleet.poll_now(node)
        await self._watch(profile.id, node)

    async def unload(self, node: str, model: str, *, forced: bool) -> None:
        """End a model, unless it is in use by what the node says this very moment.

        Raises:
            InUse: It is, and stays.
            HelexaError: The node does not answer, or refuses.
        """
        api = self._api(node)
        if not forced:
            health = _decoded(await api.get("/health", CALL_TIMEOUT_S))
            load = next((m for m in health.models if m.id == model), None)
            if self._ours(node, model) or (load and load.in_flight + load.queue_depth):
                self._fleet.poll_now(node)
                raise InUse(model)
        answer = await api.post("/models/unload", {"model_id": model}, UNLOAD_TIMEOUT_S)
        self._fleet.poll_now(node)
        if answer.status >= 300 and answer.status != 404:
            raise from_wire(answer.status, answer.body)

    async def free_mb(self, node: str) -> dict[int, int]:
        """Free memory by device, as the node reads it now.

        Raises:
            HelexaError: It does not answer.
        """
        health = _decoded(await self._api(node).get("/health", CALL_TIMEOUT_S))
        return {reading.index: reading.vram_free_mb for reading in health.devices}

    async def _forget(self, api: NodeApi, model: str) -> None:
        """A load that did not fit was a question; it is no failure that anybody should see."""
        with suppress(HelexaError):
            await api.post("/models/unload", {"model_id": model}, CALL_TIMEOUT_S)

    def _api(self, node: str) -> NodeApi:
        api = self._fleet.api(node)
        if api is None:
            raise ServiceUnavailable(f"The node {node!r} is gone.", retry_after_s=RETRY_S)
        return api

    async def _watch(self, model: str, node: str) -> None:
        """Until the node has it."""
        try:
            async with asyncio.timeout(APPEAR_S):
                await self._fleet.wait_until(
                    lambda f: _lost(f, node) or _state(f, node, model) is not None
                )
        except TimeoutError:
            raise ServiceUnavailable(
                f"The node {node!r} accepted {model!r} and does not list it.",
                retry_after_s=RETRY_S,
            ) from None
        fleet = None
        while fleet is None:
            try:
                async with asyncio.timeout(self._max_load_s):
                    fleet = await self._fleet.wait_until(lambda f: _over(f, node, model))
            except TimeoutError:
                now = self._fleet.snapshot()
                if _over(now, node, model):  # in the very moment the time was up
                    fleet = now
                elif not _fetching(now, node, model):
                    raise ModelLoading(
                        f"The model {model!r} is still loading on {node!r}.", retry_after_s=RETRY_S
                    ) from None
                # What is far away takes as long as it takes, and moves.
        state = _state(fleet, node, model)
        if state is None or state.entry.status != "loaded":
            raise _failure(model, node, state, lost=_lost(fleet, node))


def load_request(profile: Profile) -> LoadRequest:
    """What a node is told; quant, source and the engine's settings always travel along."""
    return LoadRequest(
        model_id=profile.id,
        harness=profile.harness or None,
        quant=profile.quant,
        source=profile.source,
        tensor_parallel=profile.min_devices if profile.min_devices > 1 else None,
        engine=profile.engine or None,
    )


def _failure(model: str, node: str, state: ModelState | None, *, lost: bool) -> HelexaError:
    said = f"The model {model!r} could not be loaded: "
    if lost:
        return ServiceUnavailable(
            f"{said}the node {node!r} no longer answers.", retry_after_s=RETRY_S
        )
    if state is None:
        return ServiceUnavailable(
            f"{said}the node {node!r} no longer lists it.", retry_after_s=RETRY_S
        )
    entry = state.entry
    detail = entry.servable.detail or f"its state on {node!r} is {entry.status}"
    shortage = entry.servable.shortage
    if shortage is not None:
        figures = msgspec.to_builtins(shortage)
        return InsufficientVram(f"{said}{detail}", retry_after_s=RETRY_S, **figures)
    return ServiceUnavailable(f"{said}{detail}.", retry_after_s=RETRY_S)


def _decoded(answer: Answer) -> Health:
    if answer.status != 200:
        raise from_wire(answer.status, answer.body)
    try:
        return msgspec.json.decode(answer.body, type=Health)
    except UNREADABLE as error:
        raise ServiceUnavailable(f"The node's health cannot be read: {error}.") from error


def _state(fleet: FleetSnapshot, node: str, model: str) -> ModelState | None:
    found = fleet.node(node)
    return None if found is None else found.models.get(model)


def _lost(fleet: FleetSnapshot, node: str) -> bool:
    found = fleet.node(node)
    return found is None or not found.reachable


def _fetching(fleet: FleetSnapshot, node: str, model: str) -> bool:
    """Whether the node brings the model's files, and they come."""
    state = _state(fleet, node, model)
    files = None if state is None else state.entry.download
    return files is not None and files.bytes_per_s > 0


def _over(fleet: FleetSnapshot, node: str, model: str) -> bool:
    state = _state(fleet, node, model)
    return _lost(fleet, node) or state is None or state.entry.status not in ("loading", "reloading")
