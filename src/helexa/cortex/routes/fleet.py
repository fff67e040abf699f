"""Administration of the fleet: what is where, who waits for what; loads, unloads, drains, nodes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    ModelNotFound,
    ServiceUnavailable,
)
from helexa.cortex.catalogue import profile_of, resolve
from helexa.cortex.fleet.snapshot import ModelState, NodeSnapshot
from helexa.cortex.profiles import Profile
from helexa.cortex.residency import view
from helexa.cortex.residency.effects import load_request
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.respond import body_as, reply
from helexa.cortex.routing.breaker import phase
from helexa.cortex.routing.decide import Refuse, Serve, Wake, decide
from helexa.cortex.settings import NeuronSettings
from helexa.wire.errors import from_wire

CALL_TIMEOUT_S = 120.0

Handler = Callable[[Request], Awaitable[Response]]


class LoadOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/load``: a model or alias, on the best node or on a named one.

    Args:
        wait: Answer when it is loaded; None waits unless a node is named.
    """

    model: str
    node: str | None = None
    wait: bool | None = None


class UnloadOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/unload``: from every node that has it, or from a named one."""

    model: str
    node: str | None = None


class DrainOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/drain``: refuse new work on a node, or accept it again."""

    node: str
    draining: bool = True


class NodeOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/nodes``: one more node, until it is removed; ``ca`` is a path here."""

    name: str
    endpoint: str
    ca: str | None = None


class FleetRoutes:
    """Handlers over the fleet; who may ask is checked around them."""

    def __init__(self, deps: ManagementDeps) -> None:
        self._deps = deps

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, path, handler."""
        return [
            ("GET", "/admin/fleet", self.fleet),
            ("POST", "/admin/load", self.load),
            ("POST", "/admin/unload", self.unload),
            ("POST", "/admin/drain", self.drain),
            ("POST", "/admin/nodes", self.add),
            ("DELETE", "/admin/nodes/{name:path}", self.remove),
        ]

    # Looking.

    async def fleet(self, _request: Request) -> Response:
        residency = self._deps.residency
        return reply(
            {
                "nodes": [self._shown(node) for node in self._deps.fleet.snapshot().nodes],
                "loading": list(residency.loading),
                "waiting": view.lines(residency),
                "wishes": {
                    model: {"may_evict": wish.may_evict, "error": wish.error}
                    for model, wish in residency.wishes.items()
                },
                "evictions": residency.scheduler.evictions,
                "ledger": msgspec.to_builtins(self._deps.condition()),
            }
        )

    def _shown(self, node: NodeSnapshot) -> dict[str, object]:
        deps = self._deps
        api = deps.fleet.api(node.name)
        shown: dict[str, object] = msgspec.to_builtins(node)
        del shown["outlooks"]  # long, and asked for anew by /admin/plan
        shown |= {
            "state": node.state,
            "reachable": node.reachable,
            "leases": deps.leases.open(node.name),
            "origin": deps.roster.origin(node.name),
            "socket": None if api is None else api.socket,
            "multiplexed": api is not None and api.multiplexed,
            "under_way": view.under_way(deps.residency, node.name),
            "models": {name: self._model(node, state) for name, state in node.models.items()},
        }
        return shown

    def _model(self, node: NodeSnapshot, state: ModelState) -> dict[str, object]:
        deps, model = self._deps, state.entry.id
        work = deps.leases.work(node.name, model)
        shown: dict[str, object] = msgspec.to_builtins(state)
        shown |= {
            "servable": state.servable,
            "busy": state.busy or bool(work.open),
            "open": work.open,
            "closing": node.name in deps.residency.closing(model),
            "breaker": phase(work.breaker, time.monotonic()),
        }
        return shown | view.facts(deps.residency, node.name, model)

    # Acting.

    async def load(self, request: Request) -> Response:
        order = await body_as(request, LoadOrder)
        model = resolve(self._deps.profiles.current, order.model)
        if order.node is not None:
            wait = bool(order.wait)
            await self._load_on(model, order.node, wait=wait)
            status, code = ("loaded", 200) if wait else ("loading", 202)
            return reply({"model": model, "node": order.node, "status": status}, code)
        decision = decide(model, self._deps.profiles.current, self._deps.fleet.snapshot())
        if isinstance(decision, Refuse):
            known = profile_of(self._deps.profiles.current, model) is not None
            raise decision.error if known else _without_a_node(model, decision.error)
        if isinstance(decision, Serve):
            return reply({"model": model, "status": "present"})
        if order.wait is False:
            if isinstance(decision, Wake):  # else it is on its way already
                self._deps.residency.wish(model, may_evict=True)
            return reply({"model": model, "status": "loading"}, 202)
        node = await self._deps.residency.load_now(model)
        return reply({"model": model, "node": node, "status": "loaded"})

    async def unload(self, request: Request) -> Response:
        order = await body_as(request, UnloadOrder)
        model = resolve(self._deps.profiles.current, order.model)
        if order.node is not None:
            self._node(order.node)
        nodes = [
            node.name
            for node in self._deps.fleet.snapshot().reachable
            if model in node.models and order.node in (None, node.name)
        ]
        if not nodes:
            who = "No node has" if order.node is None else f"The node {order.node!r} does not have"
            raise ModelNotFound(f"{who} the model {model!r}.", param="model")
        calls = (self._call(node, "/models/unload", {"model_id": model}) for node in nodes)
        done = await asyncio.gather(*calls, return_exceptions=True)
        errors = [error for error in done if error is not None]
        if len(errors) == len(nodes):
            raise errors[0]
        results = [
            {"node": node, "status": "unloaded" if error is None else str(error)}
            for node, error in zip(nodes, done, strict=True)
        ]
        return reply({"model": model, "nodes": results})

    async def drain(self, request: Request) -> Response:
        order = await body_as(request, DrainOrder)
        self._node(order.node)
        await self._call(order.node, "/drain", {"draining": order.draining})
        self._deps.fleet.mark_draining(order.node, order.draining)
        return reply({"node": order.node, "draining": order.draining})

    async def add(self, request: Request) -> Response:
        order = await body_as(request, NodeOrder)
        ca = None if order.ca is None else Path(order.ca)
        await self._deps.roster.add(NeuronSettings(order.name, order.endpoint, ca))
        await self._deps.keep()
        return reply({"node": order.name, "endpoint": order.endpoint, "origin": "admin"}, 201)

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not await self._deps.roster.remove(name):
            raise InvalidRequestBody(f"There is no node called {name!r}.", param="name")
        await self._deps.keep()
        return reply({"node": name, "removed": True})

    async def _load_on(self, model: str, name: str, *, wait: bool) -> None:
        self._node(name)
        profiles = self._deps.profiles.current
        profile = profile_of(profiles, model) or Profile(id=model)
        path, timeout = "/models/load?wait=false", CALL_TIMEOUT_S
        if wait:
            path, timeout = "/models/load", self._deps.residency.rules.max_wait_s
        await self._call(name, path, load_request(profile), timeout)

    def _node(self, name: str) -> NodeSnapshot:
        node = self._deps.fleet.snapshot().node(name)
        if node is None:
            raise InvalidRequestBody(f"There is no node called {name!r}.", param="node")
        return node

    async def _call(
        self, name: str, path: str, body: object, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        """Tell a node something.

        Raises:
            HelexaError: It did not answer, or refused.
        """
        api = self._deps.fleet.api(name)
        if api is None:
            raise ServiceUnavailable(f"The node {name!r} has just been removed.", retry_after_s=1)
        answer = await api.post(path, body, timeout_s)
        self._deps.fleet.poll_now(name)
        if answer.status >= 300:
            raise _of_the_node(name, from_wire(answer.status, answer.body))


def _without_a_node(model: str, error: HelexaError) -> HelexaError:
    """Why ``model`` cannot be loaded anywhere; what the catalogue does not have, a node may."""
    if not isinstance(error, ModelNotFound):
        return error
    return ModelNotFound(
        f"The model {model!r} is not in the catalogue. Name the node that shall load it "
        "(--node NODE), or add it to models.toml.",
        param="model",
    )


def _of_the_node(name: str, error: HelexaError) -> HelexaError:
    error.message = f"Node {name}: {error.message}"
    error.args = (error.message,)
    return error
