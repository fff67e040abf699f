"""What clients may ask about: models, their own budget, their own requests, health, version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from helexa.core.errors import ModelNotFound
from helexa.core.principal import Principal
from helexa.cortex.catalogue import listed_as, listing
from helexa.cortex.health import health, not_ready
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.respond import dialect_of, no_request, number, reply
from helexa.wire import models_list
from helexa.wire.models_list import MOST_PAGED, ListedModel, Page


class ClientRoutes:
    """Handlers over one gateway."""

    def __init__(self, deps: ManagementDeps) -> None:
        self._deps = deps

    def routes(self) -> list[Route]:
        """With and without the ``/v1`` prefix; ids keep their slashes, raw or percent-encoded."""
        keyed = [
            route
            for prefix in ("/v1", "")
            for route in (
                Route(f"{prefix}/models", self.models),
                Route(f"{prefix}/models/{{model_id:path}}", self.model),
                Route(f"{prefix}/usage", self.usage),
                Route(f"{prefix}/requests/{{request_id:path}}", self.request),
            )
        ]
        return [
            Route("/", self.root),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/version", self.version),
            Route("/v1/health", self.health),
            Route("/v1/ready", self.ready),
            Route("/v1/version", self.version),
            *keyed,
        ]

    async def root(self, _request: Request) -> Response:
        return reply(
            {
                "name": "helexa",
                "role": "cortex",
                "version": self._deps.build.package_version,
                "status": self._health()["status"],
                "api": "/v1",
                "health": "/health",
            }
        )

    async def health(self, _request: Request) -> Response:
        return reply(self._health())

    async def ready(self, _request: Request) -> Response:
        ledger, keys = self._deps.condition(), self._deps.keys.principals
        capped = not ledger.granting and any(key.caps or key.account_caps for key in keys)
        reasons = not_ready(self._deps.fleet.snapshot(), ledger, capped=capped)
        if reasons:
            return reply({"ready": False, "reasons": reasons}, 503)
        return reply({"ready": True})

    async def version(self, _request: Request) -> Response:
        return reply({**msgspec.to_builtins(self._deps.build), "engines": {}})

    async def models(self, request: Request) -> Response:
        models = await self._listed(self._counted(request))
        if dialect_of(request) == "anthropic":
            return reply(models_list.anthropic_list(models, _page(request)))
        return reply(models_list.openai_list(models))

    async def model(self, request: Request) -> Response:
        wanted = request.path_params["model_id"]
        allowed, profiles = self._allowed(self._counted(request)), self._deps.profiles.current
        found = listed_as(wanted, profiles, self._deps.fleet.snapshot(), self._deps.started)
        if found is None or not allowed(wanted):
            raise ModelNotFound(
                f"The model {wanted!r} does not exist here. GET /v1/models lists those that do.",
                param="model",
            )
        if dialect_of(request) == "anthropic":
            return reply(models_list.anthropic_entry(found))
        return reply(models_list.openai_entry(found))

    async def usage(self, request: Request) -> Response:
        who = self._principal(request)
        await self._deps.ledger.learn([who])
        return reply(self._deps.ledger.usage(who))

    async def request(self, request: Request) -> Response:
        principal = self._principal(request)
        found = self._deps.timelines.find(request.path_params["request_id"], principal)
        if found is None:
            return no_request(request)
        return reply(found.render())

    def _health(self) -> dict[str, object]:
        return health(self._deps.fleet.snapshot(), self._deps.condition())

    def _principal(self, request: Request) -> Principal:
        """Who asks.

        Raises:
            InvalidApiKey: A key is required.
        """
        given = request.headers
        authorization, x_api_key = given.get("authorization"), given.get("x-api-key")
        return self._deps.keys.resolve(
            None if authorization is None else authorization.encode("latin-1"),
            None if x_api_key is None else x_api_key.encode("latin-1"),
        )

    def _counted(self, request: Request) -> Principal:
        """Who asks, as one request of its minute: listing costs no tokens, but is no free ride.

        Raises:
            InvalidApiKey: As ``_principal``.
            RateLimitExceeded: Too many requests.
        """
        principal = self._principal(request)
        self._deps.seats.take(principal).release()
        return principal

    async def _listed(self, principal: Principal) -> list[ListedModel]:
        """The models that this key may use; others run while they are gathered."""
        allowed, profiles = self._allowed(principal), self._deps.profiles.current
        models = []
        for model in listing(profiles, self._deps.fleet.snapshot(), self._deps.started):
            if allowed(model.id):
                models.append(model)
            await asyncio.sleep(0)
        return models

    def _allowed(self, principal: Principal) -> Callable[[str], bool]:
        """Whether a key may use the model that a name, alias or id, stands for."""
        if not principal.models:
            return lambda _: True
        aliases = self._deps.profiles.current.aliases
        allowed = {aliases.get(name, name) for name in principal.models}
        return lambda name: aliases.get(name, name) in allowed


def _page(request: Request) -> Page:
    """What of the list is asked for.

    Raises:
        InvalidRequestBody: ``limit`` is no number of models.
    """
    asked = request.query_params
    limit = number(request, "limit", MOST_PAGED, MOST_PAGED)
    return Page(limit, asked.get("after_id"), asked.get("before_id"))
