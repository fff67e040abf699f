"""The gateway as a server application: inference straight to an exchange, the rest to Starlette."""

from __future__ import annotations

import asyncio

from helexa.core.errors import (
    HeadersTooLarge,
    HelexaError,
    InvalidApiKey,
    PayloadTooLarge,
    RequestTimeout,
)
from helexa.core.ids import shown_id
from helexa.core.logging import Logger
from helexa.cortex.exchange.desk import Desk
from helexa.cortex.exchange.exchange import Exchange
from helexa.cortex.exchange.lines import CORS, id_lines
from helexa.cortex.exchange.route import Route, inference_routes
from helexa.cortex.exchange.sender import sender_of
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import BadRequest
from helexa.relay.reply import Reply
from helexa.relay.request import Head, Request
from helexa.wire import errors as wire
from helexa.wire.paths import meant_path

_ERRORS = {
    "payload_too_large": PayloadTooLarge,
    "headers_too_large": HeadersTooLarge,
    "request_timeout": RequestTimeout,
    InvalidApiKey.code: InvalidApiKey,
}


class GatewayApp:
    """Dispatches by path; knows every exchange under way."""

    def __init__(
        self, desk: Desk, management: AsgiBridge, routes: dict[bytes, Route] | None = None
    ) -> None:
        self._desk = desk
        self._management = management
        self._routes = inference_routes() if routes is None else routes
        self._running: set[Exchange] = set()

    @property
    def running(self) -> int:
        """Exchanges under way."""
        return len(self._running)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Those under way."""
        return tuple(self._running)

    @property
    def streaming(self) -> int:
        """Streamed answers whose bytes are on their way."""
        return sum(exchange.relaying for exchange in self._running)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        head = request.head
        route = self._routes.get(head.path) or self._meant(head.path)
        if route is None or head.method != b"POST":
            self._desk.books.flush()  # what is asked about may have ended just now
            self._management.handle(request, reply)
            return
        Exchange(self._desk, route, request, reply, self._running).run()

    def _meant(self, path: bytes) -> Route | None:
        """The route of a path with escapes, or put together with a doubled prefix or slash."""
        return self._routes.get(meant_path(path))

    def foresee(self, head: Head) -> BadRequest | None:
        """Nobody's long body is read before it is known whose it is: bodies are held whole."""
        try:
            sender_of(head, self._desk.keys)
        except InvalidApiKey as error:
            return BadRequest(401, error.code, error.message)
        except HelexaError:
            pass  # said when it is whole, with its id
        return None

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        """Header lines and body for what is no acceptable HTTP request."""
        kind = _ERRORS.get(error.code)
        dialect = wire.dialect_of(error.url, error.headers)
        given = error.headers.get(b"x-request-id")
        shown = shown_id(None if given is None else given.decode("latin-1"), self._desk.ids)
        if kind is not None:
            rendered = wire.render(kind(error.message), dialect, shown)
        else:
            code = "invalid_request"
            rendered = wire.route_error(error.status, code, error.message, dialect, shown)
        self._note(error, shown)
        lines = rendered.lines + id_lines(shown, dialect)
        return lines + (CORS if b"origin" in error.headers else b""), rendered.body

    def _note(self, error: BadRequest, shown: str) -> None:
        """Count it, and leave the one line that every request leaves."""
        route = self._routes.get(error.url.partition(b"?")[0])
        self._desk.metrics.refusals.labels(error.code).inc()
        self._desk.log.info(
            "request",
            request_id=shown,
            route=None if route is None else route.name,
            status=error.status,
            outcome="refused",
            code=error.code,
            reason=error.message,
        )

    def flush(self) -> None:
        """Book every ended exchange now."""
        self._desk.books.flush()

    async def cut(self, secs: float = 2.0) -> None:
        """End what still runs, each with its dialect's error, and wait for it."""
        for exchange in list(self._running):
            exchange.cancel()
        deadline = self._desk.loop.time() + secs
        while self._running and self._desk.loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await self._management.close()


class AsgiErrors:
    """Renders such exceptions; a callable, so that the bridge needs to know nothing."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def __call__(self, request: Request, error: Exception) -> tuple[bytes, bytes]:
        shown = request.header(b"x-request-id").decode("latin-1") or "none"
        self._log.error("bug", request_id=shown, path=request.decoded_path, error=repr(error))
        dialect = wire.dialect_of(request.path, request.headers)
        rendered = wire.render(wire.internal_error(shown), dialect)
        return rendered.lines, rendered.body
