"""The node's management routes: one explicit list, thin handlers, one error handler.

Ids contain slashes; raw and percent-encoded paths arrive here decoded and both work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from helexa.core.errors import HelexaError
from helexa.core.fleet import Ack, GrantUpdate, LoadRequest, UnloadRequest
from helexa.core.ids import IdSource
from helexa.core.logging import get_logger
from helexa.neuron.events import Subscription
from helexa.neuron.exchange.caller import gateway_of
from helexa.neuron.registry.entry import R
from helexa.neuron.service import Node, on_the_wire
from helexa.relay.asgi import ClientLeft
from helexa.wire import errors as wire
from helexa.wire.bodies import decode_as

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode

Exposition = Callable[[], bytes]
"""The body of ``/metrics``."""

RenderPrompt = Callable[[str, bytes], Awaitable[str]]
"""From a loaded model and a chat request's body to the prompt its template makes."""

GATEWAY = "x-helexa-gateway"
_LOOPBACK = frozenset(("127.0.0.1", "::1"))
_KNOWN = ("capabilities", "tool_call", "reasoning", "limit", "unsupported", "thinking", "pooling",
          "context_native", "format", "quant", "quants")  # fmt: skip
"""What is told of a model that is not loaded; the limit is that of a load now."""


class DrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /drain``; without a body: drain."""

    draining: bool = True


def reply(value: object, status: int = 200) -> Response:
    """``value`` as JSON."""
    return Response(_encode(on_the_wire(value)), status, media_type="application/json")


async def body_as(request: Request, kind: type[T]) -> T:
    """The request's body, as ``decode_as`` reads it."""
    return decode_as(await request.body(), kind)


class Management(Generic[R]):
    """Handlers over one node."""

    def __init__(self, node: Node[R], exposition: Exposition, render: RenderPrompt) -> None:
        self._node = node
        self._exposition = exposition
        self._render = render

    async def version(self, _request: Request) -> Response:
        return reply(self._node.version())

    async def discovery(self, request: Request) -> Response:
        client = request.client  # nobody at the other end of a Unix socket
        local = client is None or client.host in _LOOPBACK
        return reply(self._node.discovery(local=local))

    async def health(self, _request: Request) -> Response:
        return reply(self._node.health())

    async def models(self, _request: Request) -> Response:
        return reply(self._node.models())

    async def endpoint(self, request: Request) -> Response:
        self._node.registry.get(request.path_params["model_id"])
        return reply({"url": self._node.url})

    async def capabilities(self, request: Request) -> Response:
        """Of what is loaded as it was loaded, of anything else from its files alone."""
        model_id, asked = request.path_params["model_id"], request.query_params
        entry = next((e for e in self._node.models() if e.id == model_id), None)
        if entry is not None and entry.capabilities:
            told: dict[str, object] = {
                "id": entry.id,
                "capabilities": entry.capabilities,
                "tool_call": entry.tool_call,
                "reasoning": entry.reasoning,
                "limit": entry.limit,
            }
            return reply(told)
        spec = self._node.spec_of(model_id, asked.get("quant"), asked.get("source"))
        found = await self._node.foreteller.known(spec)
        return reply({"id": model_id, **{name: getattr(found, name) for name in _KNOWN}})

    async def plan(self, request: Request) -> Response:
        """What would become of a model if it were loaded now."""
        spec = self._node.normalise(await body_as(request, LoadRequest))
        return reply(await self._node.foreteller.outlook(spec))

    async def render(self, request: Request) -> Response:
        """What the model gets to read; for captures, so that a template can be debugged."""
        body = await request.body()
        return reply({"prompt": await self._render(request.path_params["model_id"], body)})

    async def load(self, request: Request) -> Response:
        spec = self._node.normalise(await body_as(request, LoadRequest))
        await self._node.check_reload(spec)
        if request.query_params.get("wait") == "false":
            return reply(self._node.registry.begin(spec).listing(), 202)
        return reply(await self._node.registry.load(spec))

    async def unload(self, request: Request) -> Response:
        named = (await body_as(request, UnloadRequest)).model_id
        model_id = self._node.normalise(LoadRequest(named)).model_id
        await self._node.registry.unload(model_id)
        # Whoever made room reads next how much there is: that must not be an old reading.
        await asyncio.to_thread(self._node.hardware.refresh)
        return reply({"id": model_id, "status": "unloaded"})

    async def requests(self, _request: Request) -> Response:
        return reply(self._node.records.snapshot())

    async def grants(self, request: Request) -> Response:
        updates = await body_as(request, list[GrantUpdate])
        return reply({"found": self._node.requests.raise_grants(updates)})

    async def ack(self, request: Request) -> Response:
        acks = await body_as(request, list[Ack])
        return reply({"acknowledged": self._node.acknowledge(acks)})

    async def drain(self, request: Request) -> Response:
        wanted = await body_as(request, DrainRequest)
        self._node.drain(wanted.draining)
        return reply({"draining": wanted.draining, "in_flight": len(self._node.requests)})

    async def metrics(self, _request: Request) -> Response:
        return Response(self._exposition(), media_type="text/plain; version=0.0.4")

    async def events(self, request: Request) -> Response:
        gateway, _ = gateway_of(request.headers.get(GATEWAY, ""))
        sub = self._node.bus.subscribe(gateway, request.headers.get("last-event-id"))
        return StreamingResponse(
            _until_left(sub, request),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )


async def _until_left(sub: Subscription, request: Request) -> AsyncGenerator[bytes, None]:
    """The subscription's batches, ended as soon as the reader leaves."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        sub.close()

    watching = asyncio.create_task(watch())
    try:
        async for batch in sub.batches():
            yield batch
    finally:
        watching.cancel()


def routes(node: Node[R], exposition: Exposition, render: RenderPrompt) -> list[Route]:
    """Every management route of the contract, and ``render``."""
    do = Management(node, exposition, render)
    return [
        Route("/version", do.version),
        Route("/discovery", do.discovery),
        Route("/health", do.health),
        Route("/models", do.models),
        Route("/models/load", do.load, methods=["POST"]),
        Route("/models/plan", do.plan, methods=["POST"]),
        Route("/models/unload", do.unload, methods=["POST"]),
        Route("/models/{model_id:path}/endpoint", do.endpoint),
        Route("/models/{model_id:path}/capabilities", do.capabilities),
        Route("/models/{model_id:path}/render", do.render, methods=["POST"]),
        Route("/requests", do.requests),
        Route("/requests/grants", do.grants, methods=["POST"]),
        Route("/requests/ack", do.ack, methods=["POST"]),
        Route("/drain", do.drain, methods=["POST"]),
        Route("/metrics", do.metrics),
        Route("/events", do.events),
    ]


def app(node: Node[R], exposition: Exposition, ids: IdSource, render: RenderPrompt) -> Starlette:
    """The Starlette app behind everything that is not inference."""
    log = get_logger()

    async def refused(_request: Request, error: Exception) -> Response:
        return _rendered(wire.render(cast("HelexaError", error), "openai"))

    async def no_route(request: Request, error: Exception) -> Response:
        status = cast("HTTPException", error).status_code
        code = "not_found" if status == 404 else "method_not_allowed"
        words = f"There is no {request.method} {request.url.path} on this node."
        return _rendered(wire.route_error(status, code, words, "openai"))

    async def bug(request: Request, error: Exception) -> Response:
        request_id = request.headers.get("x-request-id") or ids("req_")
        if not isinstance(error, ClientLeft):
            log.error("bug", request_id=request_id, path=request.url.path, error=repr(error))
        return _rendered(wire.render(wire.internal_error(request_id), "openai"))

    return Starlette(
        routes=routes(node, exposition, render),
        exception_handlers={HelexaError: refused, HTTPException: no_route, Exception: bug},
    )


def _rendered(rendered: wire.Rendered) -> Response:
    headers = {name.decode(): value.decode() for name, value in rendered.headers}
    return Response(rendered.body, rendered.status, headers)
