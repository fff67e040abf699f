"""``/v1/responses/{id}``: fetch, list the input of, and delete what is kept."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from helexa.core.errors import InvalidRequestBody, UnsupportedOperation, UnsupportedParameter
from helexa.core.principal import Principal
from helexa.cortex.auth import KeyTable
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.routes.respond import number, rendered, reply
from helexa.wire import errors as wire

_MOST_LISTED = 100
_LISTED = 20
_PREFIXES = ("/v1", "")


class ResponseRoutes:
    """What a key has had kept.

    Args:
        keeper: None where nothing is kept: then nothing is found.
    """

    def __init__(self, keys: KeyTable, keeper: Keeper | None) -> None:
        self._keys = keys
        self._keeper = keeper

    def routes(self) -> list[Route]:
        """All routes, with and without the prefix."""
        one, items = "/responses/{response_id}", "/responses/{response_id}/input_items"
        return [
            route
            for prefix in _PREFIXES
            for route in (
                Route(prefix + "/responses/compact", self.compact, methods=["POST"]),
                Route(prefix + items, self.inputs, methods=["GET"]),
                Route(prefix + one, self.one, methods=["GET"]),
                Route(prefix + one, self.delete, methods=["DELETE"]),
            )
        ]

    async def one(self, request: Request) -> Response:
        principal, wanted = self._who(request), request.path_params["response_id"]
        if request.query_params.get("stream") == "true":
            raise UnsupportedParameter(
                "The events of a kept response are not kept; fetch it without `stream`.",
                param="stream",
            )
        if self._keeper is None:
            return _missing(wanted)
        found = await self._keeper.ask(principal, lambda shelf, owner: shelf.find(owner, wanted))
        if found is None:
            return _missing(wanted)
        return Response(found, media_type="application/json")

    async def compact(self, request: Request) -> Response:
        """Not served: which model should read it, and at whose cost, is the client's to say."""
        self._who(request)
        raise UnsupportedOperation(
            "Compacting a conversation is not served here. Ask the model for a summary with "
            "POST /v1/responses and go on from that."
        )

    async def inputs(self, request: Request) -> Response:
        principal, wanted = self._who(request), request.path_params["response_id"]
        limit = number(request, "limit", _LISTED, _MOST_LISTED)
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequestBody("order must be asc or desc.", param="order")
        if self._keeper is None:
            return _missing(wanted)
        found = await self._keeper.ask(principal, lambda shelf, owner: shelf.inputs(owner, wanted))
        if found is None:
            return _missing(wanted)
        items = [msgspec.json.decode(body) for body in found]
        if order == "desc":
            items.reverse()
        return reply(_page(items, limit, request.query_params.get("after")))

    async def delete(self, request: Request) -> Response:
        principal, wanted = self._who(request), request.path_params["response_id"]
        if self._keeper is None:
            return _missing(wanted)
        if not await self._keeper.ask(principal, lambda shelf, owner: shelf.delete(owner, wanted)):
            return _missing(wanted)
        return reply({"id": wanted, "object": "response", "deleted": True})

    def _who(self, request: Request) -> Principal:
        given = request.headers
        authorization, x_api_key = given.get("authorization"), given.get("x-api-key")
        return self._keys.resolve(
            None if authorization is None else authorization.encode("latin-1"),
            None if x_api_key is None else x_api_key.encode("latin-1"),
        )


def _page(items: list[dict[str, Any]], limit: int, after: str | None) -> dict[str, Any]:
    if after is not None:
        at = next((i for i, item in enumerate(items) if item["id"] == after), len(items))
        items = items[at + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def _missing(response_id: str) -> Response:
    words = f"Response with id {response_id[:80]!r} not found."
    return rendered(wire.route_error(404, "response_not_found", words, "openai"))
