"""Administration: the fleet, budgets, requests, captures; loads, unloads and drains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    ModelNotFound,
    ServiceUnavailable,
)
from helexa.cortex.capture import Capture, CaptureOrder, as_lines, as_zip
from helexa.cortex.catalogue import profile_of, resolve
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.profiles import Profile
from helexa.cortex.residency.effects import load_request
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.guard import require_admin
from helexa.cortex.routes.keys import KeyRoutes
from helexa.cortex.routes.respond import body_as, no_route, number, reply
from helexa.cortex.routing.decide import Refuse, Wake, decide
from helexa.wire.errors import from_wire

CALL_TIMEOUT_S = 120.0

Handler = Callable[[Request], Awaitable[Response]]


class LoadOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/load``: a model or alias, on the best node or on a named one."""

    model: str
    node: str | None = None


class UnloadOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/unload``: from every node that has it, or from a named one."""

    model: str
    node: str | None = None


class DrainOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/drain``: refuse new work on a node, or accept it again."""

    node: str
    draining: bool = True


class AdminRoutes:
    """Handlers over one gateway; each asks first whether the caller may."""

    def __init__(self, deps: ManagementDeps) -> None:
        self._deps = deps

    def routes(self) -> list[Route]:
        """Everything under ``/admin``."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/admin/fleet", self.fleet),
            ("GET", "/admin/grants", self.grants),
            ("GET", "/admin/usage", self.usage),
            ("GET", "/admin/requests", self.requests),
            ("GET", "/admin/requests/{request_id:path}", self.request),
            ("GET", "/admin/capture", self.capture_status),
            ("POST", "/admin/capture", self.capture_start),
            ("DELETE", "/admin/capture", self.capture_drop),
            ("POST", "/admin/capture/stop", self.capture_stop),
            ("GET", "/admin/capture/download", self.capture_download),
            ("POST", "/admin/load", self.load),
            ("POST", "/admin/unload", self.unload),
            ("POST", "/admin/drain", self.drain),
        ]
        table += KeyRoutes(self._deps.keyring, self._deps.ledger.usage).table()
        return [Route(path, self._guarded(do), methods=[method]) for method, path, do in table]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            require_admin(request, self._deps.keys)
            return await handler(request)

        return guarded

    # Looking.

    async def fleet(self, _request: Request) -> Response:
        deps = self._deps
        nodes = [
            {
                **msgspec.to_builtins(node),
                "state": node.state,
                "reachable": node.reachable,
                "leases": deps.leases.open(node.name),
            }
            for node in deps.fleet.snapshot().nodes
        ]
        return reply({"nodes": nodes, "loading": list(deps.residency.loading)})

    async def grants(self, _request: Request) -> Response:
        return reply(self._deps.ledger.snapshot())

    async def usage(self, _request: Request) -> Response:
        ledger = self._deps.ledger
        return reply({"keys": [ledger.usage(key) for key in self._deps.keys.principals]})

    async def requests(self, request: Request) -> Response:
        asked = request.query_params
        found = self._deps.timelines.latest(
            number(request, "limit", 50, 1000), asked.get("model"), asked.get("key_id")
        )
        return reply({"requests": [timeline.render(admin=True) for timeline in found]})

    async def request(self, request: Request) -> Response:
        found = self._deps.timelines.find(request.path_params["request_id"], None)
        if found is None:
            return no_route(request, 404)
        return reply(found.render(admin=True))

    # Capturing.

    async def capture_status(self, request: Request) -> Response:
        capture = self._deps.captures.current
        return no_route(request, 404) if capture is None else reply(capture.status())

    async def capture_start(self, request: Request) -> Response:
        order = await body_as(request, CaptureOrder)
        if order.model is not None:
            model = resolve(self._deps.profiles.current, order.model)
            order = msgspec.structs.replace(order, model=model)
        capture = self._deps.captures.start(order)
        self._deps.log.warning("capture armed", key=order.key_id, model=order.model)
        return reply(capture.status(), 201)

    async def capture_stop(self, request: Request) -> Response:
        self._deps.captures.stop()
        return await self.capture_status(request)

    async def capture_drop(self, _request: Request) -> Response:
        self._deps.captures.drop()
        return reply({"dropped": True})

    async def capture_download(self, request: Request) -> Response:
        capture = self._deps.captures.current
        if capture is None:
            return no_route(request, 404)
        await self._deps.captures.add_prompts()
        return await _download(capture, request.query_params.get("format", "jsonl"))

    # Acting.

    async def load(self, request: Request) -> Response:
        order = await body_as(request, LoadOrder)
        model = resolve(self._deps.profiles.current, order.model)
        if order.node is not None:
            await self._load_on(model, order.node)
            return reply({"model": model, "node": order.node, "status": "loading"}, 202)
        decision = decide(model, self._deps.profiles.current, self._deps.fleet.snapshot())
        if isinstance(decision, Refuse):
            raise decision.error
        if not isinstance(decision, Wake):
            return reply({"model": model, "status": "present"})
        node = await self._deps.residency.load_now(model)
        return reply({"model": model, "node": node, "status": "loaded"})

    async def unload(self, request: Request) -> Response:
        order = await body_as(request, UnloadOrder)
        model = resolve(self._deps.profiles.current, order.model)
        nodes = [
            node.name
            for node in self._deps.fleet.snapshot().reachable
            if model in node.models and order.node in (None, node.name)
        ]
        if not nodes:
            raise ModelNotFound(f"The model {model!r} is not on any such node.", param="model")
        calls = (self._call(node, "/models/unload", {"model_id": model}) for node in nodes)
        done = await asyncio.gather(*calls, return_exceptions=True)
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

    async def _load_on(self, model: str, name: str) -> None:
        self._node(name)
        profiles = self._deps.profiles.current
        profile = profile_of(profiles, model) or Profile(id=model, harness="")
        await self._call(name, "/models/load?wait=false", load_request(profile))

    def _node(self, name: str) -> NodeSnapshot:
        node = self._deps.fleet.snapshot().node(name)
        if node is None:
            raise InvalidRequestBody(f"There is no node called {name!r}.", param="node")
        return node

    async def _call(self, name: str, path: str, body: object) -> None:
        """Tell a node something.

        Raises:
            HelexaError: It did not answer, or refused.
        """
        api = self._deps.fleet.api(name)
        if api is None:
            raise ServiceUnavailable(f"The node {name!r} has just been removed.", retry_after_s=1)
        answer = await api.post(path, body, CALL_TIMEOUT_S)
        self._deps.fleet.poll_now(name)
        if answer.status >= 300:
            raise _of_the_node(name, from_wire(answer.status, answer.body))


def _of_the_node(name: str, error: HelexaError) -> HelexaError:
    error.message = f"Node {name}: {error.message}"
    error.args = (error.message,)
    return error


async def _download(capture: Capture, form: str) -> Response:
    """The capture as a file; packed in a thread, for it may be large."""
    if form == "zip":
        body, kind = await asyncio.to_thread(as_zip, capture), "application/zip"
    elif form == "jsonl":
        body, kind = await asyncio.to_thread(as_lines, capture), "application/jsonl"
    else:
        raise InvalidRequestBody("format must be jsonl or zip.", param="format")
    disposition = f'attachment; filename="capture.{form}"'
    return Response(body, media_type=kind, headers={"content-disposition": disposition})
