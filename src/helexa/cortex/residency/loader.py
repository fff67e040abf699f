"""Making a cold model warm: one load per model, shared by everyone who waits for it.

A load is started on one node after the other until one takes it, and is over when the fleet's
snapshot says so. Waiters that leave change nothing; a load that failed everywhere is not tried
again for a moment, so that retrying clients do not hammer the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from helexa.core.errors import HelexaError, ModelLoading, ServiceUnavailable, UpstreamFailed
from helexa.core.fleet import LoadRequest
from helexa.cortex.fleet.client import Answer
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.cortex.profiles import Profile
from helexa.wire.errors import from_wire

CALL_TIMEOUT_S = 10.0
FAILED_FOR_S = 10.0
APPEAR_S = 15.0


class Loader:
    """Owner of the loads that this gateway has started.

    Args:
        fleet: Watched for how loads go.
        now: Monotonic seconds.
        max_load_s: A load that takes longer is given up on (the node may still finish it).
        on_load: Told of every load that ended well: model, node, seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        now: Callable[[], float],
        *,
        max_load_s: float = 600.0,
        on_load: Callable[[str, str, float], object] = lambda _m, _n, _s: None,
    ) -> None:
        self._fleet = fleet
        self._now = now
        self._max_load_s = max_load_s
        self._on_load = on_load
        self._loads: dict[str, asyncio.Task[str]] = {}
        self._failed: dict[str, tuple[float, HelexaError]] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Models being loaded on our account."""
        return tuple(self._loads)

    async def load(self, profile: Profile, nodes: tuple[str, ...]) -> str:
        """Wait until the model is loaded, starting the load if nobody has.

        Args:
            nodes: Where it may go, best first; used by whoever comes first.

        Returns:
            The node that has it.

        Raises:
            HelexaError: No node could load it; the last one's reason.
        """
        task = self._loads.get(profile.id)
        if task is None:
            self._raise_if_just_failed(profile.id)
            task = asyncio.create_task(self._run(profile, nodes), name=f"load {profile.id}")
            self._loads[profile.id] = task
            task.add_done_callback(lambda done: self._ended(profile.id, done))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop waiting for loads; the nodes go on with them."""
        tasks = list(self._loads.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _raise_if_just_failed(self, model: str) -> None:
        until, error = self._failed.get(model, (0.0, None))
        left = until - self._now()
        if error is None:
            return
        if left <= 0:
            del self._failed[model]
            return
        extras: dict[str, Any] = error.extras
        again = type(error).__new__(type(error))
        HelexaError.__init__(again, error.message, retry_after_s=round(left, 3), **extras)
        raise again

    def _ended(self, model: str, task: asyncio.Task[str]) -> None:
        del self._loads[model]
        if task.cancelled():
            return
        error = task.exception()  # also: a failure that nobody waits for any more is no leak
        if isinstance(error, HelexaError):
            self._failed[model] = (self._now() + FAILED_FOR_S, error)

    async def _run(self, profile: Profile, nodes: tuple[str, ...]) -> str:
        last: HelexaError = ServiceUnavailable(
            f"No node is there to load {profile.id!r}.", retry_after_s=FAILED_FOR_S
        )
        for node in nodes:
            try:
                started = self._now()
                await self._load_on(profile, node)
            except HelexaError as error:
                last = error
            else:
                self._on_load(profile.id, node, self._now() - started)
                return node
        if isinstance(last, UpstreamFailed):
            raise ServiceUnavailable(
                f"The model {profile.id!r} could not be loaded: {last.message}",
                retry_after_s=FAILED_FOR_S,
            ) from last
        raise last

    async def _load_on(self, profile: Profile, node: str) -> None:
        api = self._fleet.api(node)
        if api is None:
            raise ServiceUnavailable(f"The node {node!r} is gone.", retry_after_s=FAILED_FOR_S)
        answer = await api.post("/models/load?wait=false", load_request(profile), CALL_TIMEOUT_S)
        if answer.status >= 300:
            raise _refusal(profile.id, node, answer)
        self._fleet.poll_now(node)
        await self._watch(profile.id, node)

    async def _watch(self, model: str, node: str) -> None:
        """Until the node has it.

        Raises:
            HelexaError: It failed, vanished, or took too long.
        """
        try:
            async with asyncio.timeout(APPEAR_S):
                await self._fleet.wait_until(lambda f: _status(f, node, model) is not None)
        except TimeoutError:
            raise ServiceUnavailable(
                f"The node {node!r} accepted {model!r} and does not list it.",
                retry_after_s=FAILED_FOR_S,
            ) from None
        try:
            async with asyncio.timeout(self._max_load_s):
                fleet = await self._fleet.wait_until(lambda f: _over(f, node, model))
        except TimeoutError:
            raise ModelLoading(
                f"The model {model!r} is still loading on {node!r}.", retry_after_s=FAILED_FOR_S
            ) from None
        if _status(fleet, node, model) != "loaded":
            raise ServiceUnavailable(
                f"The model {model!r} could not be loaded: {_reason(fleet, node, model)}.",
                retry_after_s=FAILED_FOR_S,
            )


def load_request(profile: Profile) -> LoadRequest:
    """What a node is told; quant and source always travel along."""
    return LoadRequest(
        model_id=profile.id,
        harness=profile.harness or None,
        quant=profile.quant,
        source=profile.source,
        tensor_parallel=profile.min_devices if profile.min_devices > 1 else None,
    )


def _refusal(model: str, node: str, answer: Answer) -> HelexaError:
    error = from_wire(answer.status, answer.body)
    if answer.status >= 500 or answer.status == 429:
        return error
    # A node's 4xx is about our request to it, never about the client's.
    return ServiceUnavailable(
        f"The node {node!r} will not load {model!r}: {error.message}", retry_after_s=FAILED_FOR_S
    )


def _status(fleet: FleetSnapshot, node: str, model: str) -> str | None:
    found = fleet.node(node)
    state = None if found is None else found.models.get(model)
    return None if state is None else state.entry.status


def _over(fleet: FleetSnapshot, node: str, model: str) -> bool:
    found = fleet.node(node)
    if found is None or not found.reachable:
        return True
    return _status(fleet, node, model) not in ("loading", "reloading")


def _reason(fleet: FleetSnapshot, node: str, model: str) -> str:
    found = fleet.node(node)
    if found is None or not found.reachable:
        return f"the node {node!r} no longer answers"
    state = found.models.get(model)
    if state is None:
        return f"the node {node!r} no longer lists it"
    return state.entry.servable.detail or f"its state on {node!r} is {state.entry.status}"
