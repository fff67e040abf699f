"""Administration: the fleet, budgets, requests, captures; loads, unloads and drains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from helexa.core.errors import (
    InvalidRequestBody,
)
from helexa.core.principal import ANONYMOUS
from helexa.cortex.capture import Capture, CaptureOrder, as_lines, as_zip
from helexa.cortex.catalogue import resolve
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.fleet import FleetRoutes
from helexa.cortex.routes.guard import require_admin
from helexa.cortex.routes.keys import KeyRoutes
from helexa.cortex.routes.plan import PlanRoutes
from helexa.cortex.routes.respond import (
    body_as,
    missing,
    no_request,
    number,
    only,
    reply,
    reply_list,
)
from helexa.cortex.routes.usage import UsageRoutes

Handler = Callable[[Request], Awaitable[Response]]


_NO_CAPTURE = "Nothing is or was captured; POST /admin/capture begins."


class AdminRoutes:
    """Handlers over one gateway; each asks first whether the caller may."""

    def __init__(self, deps: ManagementDeps) -> None:
        self._deps = deps

    def routes(self) -> list[Route]:
        """Everything under ``/admin``."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/admin/grants", self.grants),
            ("GET", "/admin/requests", self.requests),
            ("GET", "/admin/requests/{request_id:path}", self.request),
            ("GET", "/admin/capture", self.capture_status),
            ("POST", "/admin/capture", self.capture_start),
            ("DELETE", "/admin/capture", self.capture_drop),
            ("POST", "/admin/capture/stop", self.capture_stop),
            ("GET", "/admin/capture/download", self.capture_download),
        ]
        table += FleetRoutes(self._deps).table()
        table += PlanRoutes(self._deps).table()
        table += KeyRoutes(self._deps.keyring, self._deps.ledger).table()
        if self._deps.usage is not None:
            table += UsageRoutes(self._deps.usage).table()
        return [Route(path, self._guarded(do), methods=[method]) for method, path, do in table]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            require_admin(request, self._deps.keys)
            return await handler(request)

        return guarded

    # Looking.

    async def grants(self, _request: Request) -> Response:
        return reply(self._deps.ledger.snapshot())

    async def requests(self, request: Request) -> Response:
        only(request, "limit", "model", "key", "key_id")
        asked = request.query_params
        model = asked.get("model")
        if model is not None:
            model = resolve(self._deps.profiles.current, model)
        key = asked.get("key", asked.get("key_id"))
        found = self._deps.timelines.latest(number(request, "limit", 50, 1000), model, key)
        return await reply_list("requests", (one.render(admin=True) for one in found))

    async def request(self, request: Request) -> Response:
        found = self._deps.timelines.find(request.path_params["request_id"], None)
        if found is None:
            return no_request(request)
        return reply(found.render(admin=True))

    # Capturing.

    async def capture_status(self, request: Request) -> Response:
        capture = self._deps.captures.current
        return missing(request, _NO_CAPTURE) if capture is None else reply(capture.status())

    async def capture_start(self, request: Request) -> Response:
        order = await body_as(request, CaptureOrder)
        if order.model is not None:
            model = resolve(self._deps.profiles.current, order.model)
            order = msgspec.structs.replace(order, model=model)
        if order.key_id is not None:
            order = msgspec.structs.replace(order, key_id=self._key(order.key_id))
        capture = self._deps.captures.start(order)
        self._deps.log.warning("capture armed", key=order.key_id, model=order.model)
        return reply(capture.status(), 201)

    def _key(self, name: str) -> str:
        """The id of the key that is called so.

        Raises:
            InvalidRequestBody: None is; a capture of it would wait in vain.
        """
        found = self._deps.keyring.find(name)
        if found is None and name != ANONYMOUS.key_id:
            words = f"There is no key called {name[:80]!r}; GET /admin/keys lists them."
            raise InvalidRequestBody(words, param="key_id")
        return name if found is None else found.key_id

    async def capture_stop(self, request: Request) -> Response:
        self._deps.captures.stop()
        return await self.capture_status(request)

    async def capture_drop(self, _request: Request) -> Response:
        self._deps.captures.drop()
        return reply({"dropped": True})

    async def capture_download(self, request: Request) -> Response:
        capture = self._deps.captures.current
        if capture is None:
            return missing(request, _NO_CAPTURE)
        await self._deps.captures.add_prompts()
        return await _download(capture, request.query_params.get("format", "jsonl"))


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
