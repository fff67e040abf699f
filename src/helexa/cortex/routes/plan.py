"""What would become of a model on each node, asked of the nodes themselves, now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from helexa.core.errors import HelexaError, UpstreamConnectionError
from helexa.core.fleet import LoadRequest
from helexa.core.outlook import Outlook
from helexa.cortex.catalogue import barred, profile_of, resolve
from helexa.cortex.fleet.foresight import ASK_S, PATH
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.profiles import Profile
from helexa.cortex.residency.effects import load_request
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.respond import body_as, reply
from helexa.wire.bodies import UNREADABLE
from helexa.wire.errors import from_wire

Handler = Callable[[Request], Awaitable[Response]]


class PlanOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/plan``: a model or alias; what is not said is the catalogue's."""

    model: str
    node: str | None = None
    harness: str | None = None
    quant: str | None = None
    source: str | None = None


class PlanRoutes:
    """One handler; who may ask is checked around it."""

    def __init__(self, deps: ManagementDeps) -> None:
        self._deps = deps

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, path, handler."""
        return [("POST", "/admin/plan", self.plan)]

    async def plan(self, request: Request) -> Response:
        """Outlooks by node; a node that says nothing says why, and one that the catalogue keeps
        the model from is asked only by name. ``loaded`` names those that have the model: what
        they foretell is what would fit beside it."""
        order = await body_as(request, PlanOrder)
        profiles = self._deps.profiles.current
        model = resolve(profiles, order.model)
        profile = profile_of(profiles, model) or Profile(model)
        spec = load_request(profile)
        said = {n: getattr(order, n) for n in ("harness", "quant", "source")}
        spec = msgspec.structs.replace(spec, **{n: v for n, v in said.items() if v is not None})
        reachable = self._deps.fleet.snapshot().reachable
        nodes = [node for node in reachable if order.node in (None, node.name)]
        told = await asyncio.gather(
            *(
                self._ask(node.name, spec, None if order.node else barred(profile, node))
                for node in nodes
            )
        )
        outlooks = {node.name: outlook for node, outlook in zip(nodes, told, strict=True)}
        loaded = [node.name for node in nodes if _is_loaded(model, node)]
        return reply({"model": model, "nodes": outlooks, "loaded": loaded})

    async def _ask(self, name: str, spec: LoadRequest, barred: str | None) -> Outlook:
        if barred is not None:
            return Outlook(spec.model_id, False, reason="catalogue", detail=barred)
        api = self._deps.fleet.api(name)
        try:
            if api is None:
                raise UpstreamConnectionError(f"The node {name!r} has just been removed.")
            answer = await api.post(PATH, spec, ASK_S)
            if answer.status != 200:
                raise from_wire(answer.status, answer.body)
            return msgspec.json.decode(answer.body, type=Outlook)
        except (HelexaError, *UNREADABLE) as error:
            code = error.code if isinstance(error, HelexaError) else None
            return Outlook(spec.model_id, False, reason=code or "no_answer", detail=str(error))


def _is_loaded(model: str, node: NodeSnapshot) -> bool:
    state = node.models.get(model)
    return state is not None and state.entry.status == "loaded"
