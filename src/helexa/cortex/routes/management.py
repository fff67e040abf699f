"""The Starlette app behind everything that is not relayed.

CORS is open for the client API and closed for ``/admin`` and ``/ui``: a web page may talk to
models, and must not administer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helexa.core.errors import HelexaError
from helexa.core.ids import IdSource, shown_id
from helexa.cortex.exchange.route import EXPOSED
from helexa.cortex.routes.admin import AdminRoutes
from helexa.cortex.routes.client import ClientRoutes
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.respond import dialect_of, no_route, refusal
from helexa.cortex.routes.responses import ResponseRoutes
from helexa.relay.asgi import ClientLeft
from helexa.wire import errors as wire
from helexa.wire.paths import client_path

CLOSED = ("/admin", "/ui")
Lines = list[tuple[bytes, bytes]]
_PRIVATE = b"access-control-request-private-network"
_ALLOWED: Lines = [(b"access-control-allow-private-network", b"true")]


class ClientCors:
    """CORS for everything but what is closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_closed(scope["path"]):
            await self._app(scope, receive, send)
            return
        # Before it lets a public page ask a private address a browser may want to hear that this
        # was meant. Starlette knows that from some version on, and refuses unless it is told to.
        left = [line for line in scope["headers"] if line[0] != _PRIVATE]
        meant = len(left) < len(scope["headers"])
        scope = {**scope, "headers": left}
        await self._open(scope, receive, _with(send, _ALLOWED) if meant else send)


class RequestIds:
    """Names every request in the headers of its answer, a refusal too: by what its client calls
    it, or by a name of ours."""

    def __init__(self, app: ASGIApp, ids: IdSource) -> None:
        self._app = app
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        shown = shown_id(request.headers.get("x-request-id"), self._ids)
        scope.setdefault("state", {})["request_id"] = shown
        value = shown.encode("latin-1")
        lines = [(b"x-request-id", value)]
        if dialect_of(request) == "anthropic":
            lines.append((b"request-id", value))
        await self._app(scope, receive, _with(send, lines))


class Bugs:
    """Turns what no handler foresaw into an answer.

    Starlette's own handler of ``Exception`` raises again after it has answered, and the bridge
    below would report the same bug a second time.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Request, Exception], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if begun:
                raise  # the bridge reports it and cuts the answer
            await self._answer(Request(scope), error)(scope, receive, send)


class ClientPaths:
    """Takes paths with a doubled prefix or slash for what they mean."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = client_path(scope["path"])
        await self._app(scope, receive, send)


def _with(send: Send, lines: Lines) -> Send:
    """``send`` whose answers carry these header lines as well."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *lines]
        await send(message)

    return sending


def is_closed(path: str) -> bool:
    """Whether a path is none of a web page's business."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in CLOSED)


def management_app(deps: ManagementDeps) -> Starlette:
    """Every management route of the gateway, and the envelope of what goes wrong in them."""

    async def refused(request: Request, error: Exception) -> Response:
        return refusal(request, cast("HelexaError", error))

    async def missing(request: Request, error: Exception) -> Response:
        http = cast("HTTPException", error)
        if http.status_code == 404 and request.url.path in deps.post_paths:
            return no_route(request, 405, "POST")
        allow = (http.headers or {}).get("Allow")
        return no_route(request, http.status_code, allow)

    def bug(request: Request, error: Exception) -> Response:
        request_id = request.state.request_id
        if not isinstance(error, ClientLeft):
            deps.log.error("bug", request_id=request_id, path=request.url.path, error=repr(error))
        return refusal(request, wire.internal_error(request_id))

    app = Starlette(
        routes=[
            *ClientRoutes(deps).routes(),
            *ResponseRoutes(deps.keys, deps.keeper).routes(),
            *AdminRoutes(deps).routes(),
        ],
        middleware=[
            Middleware(ClientPaths),
            Middleware(RequestIds, ids=deps.ids),
            Middleware(ClientCors),
            Middleware(Bugs, answer=bug),
        ],
        exception_handlers={HelexaError: refused, HTTPException: missing},
    )
    app.router.redirect_slashes = False
    return app
