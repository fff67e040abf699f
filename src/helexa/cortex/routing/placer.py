"""Finds the node for a request: decisions, leases and residency joined.

What can be decided per model is decided once per change of the fleet or of the catalogue; a
request then costs a look-up and an ordering of its candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from helexa.core.errors import Forbidden, ServiceUnavailable
from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.catalogue import resolve
from helexa.cortex.exchange.desk import Placed
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.telling import still_loading
from helexa.cortex.residency.waiting import Waiter
from helexa.cortex.residency.wanting import not_for_you
from helexa.cortex.routing import able
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.breaker import Kind
from helexa.cortex.routing.decide import NOBODY, SOON_S, Decision, Refuse, Serve, Wait, Wake, decide
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.prompt import ask_of
from helexa.cortex.routing.rank import Candidate, Field
from helexa.cortex.routing.router import PER_BYTE, Router
from helexa.cortex.routing.work import Lease
from helexa.wire.images import first_image
from helexa.wire.peek import Peek


class _View:
    """One model as decided for one generation."""

    __slots__ = ("candidates", "decision", "field", "lacking", "model", "queued", "unready")

    def __init__(
        self,
        model: str,
        decision: Decision,
        candidates: tuple[Candidate, ...],
        *,
        queued: bool,
        lacking: frozenset[str] = frozenset(),
        before: _View | None = None,
    ) -> None:
        self.model = model  # its one name: what is kept of a request shares it
        self.decision = decision
        self.candidates = candidates
        self.field: Field = Field(candidates, 0.0 if before is None else before.field.stale_at)
        self.queued = queued
        self.lacking = lacking
        self.unready = not isinstance(decision, Serve)


class FleetPlacer:
    """The ``Placer`` of every exchange.

    Args:
        profiles: The catalogue, re-read elsewhere.
        fleet: Read on every request.
        residency: Asked when a model is asleep, or others wait for it already.
        leases: Our own work by place.
        max_wait_s: How long a request may wait for a load.
    """

    def __init__(
        self,
        profiles: ProfileFile,
        fleet: Fleet,
        residency: Residency,
        leases: LeaseTable,
        *,
        max_wait_s: float = 600.0,
    ) -> None:
        self._profiles = profiles
        self._fleet = fleet
        self._residency = residency
        self.leases = leases
        self.router = Router(leases)
        self._max_wait_s = max_wait_s
        self._fleet_seen: FleetSnapshot | None = None
        self._profiles_seen: Profiles | None = None
        self._version_seen = -1
        self._views: dict[str, _View] = {}
        self._last: dict[str, _View] = {}  # of the generation before
        self._turn = 0

    def find(
        self,
        name: str,
        principal: Principal,
        seen: Peek | None = None,
        hint: bytes | None = None,
        ask: Ask | None = None,
        need: str = "text",
    ) -> tuple[str, Placed | None]:
        """Resolve, check and place at once: what nearly every request needs and no more.

        Args:
            name: As the client wrote it, alias or id.
            seen: The request; its prompt is looked at where there is a choice.
            hint: What the client's headers call the conversation.
            ask: What ``seen`` asks for, where that has been found out already (long prompts are
                read in a thread).
            need: What the model must be able to do.

        Returns:
            The concrete id, and the best node that can take it now; None means ``later``.

        Raises:
            HelexaError: As ``check``; ``UnsupportedOperation`` or ``VisionUnsupported`` when it
                cannot do what is needed, naming models that can.
        """
        current = self._profiles.current
        view = self._view(current.aliases.get(name, name))
        model = view.model
        if principal.models or view.unready:
            self.check(model, principal)
        if need in view.lacking:
            view = self._ably(model, view, need, principal, seen)
        if view.queued:
            return model, None
        if len(view.candidates) < 2:
            return model, self._only(view, NOBODY)
        per_byte = self.router.per_byte.get(model, PER_BYTE)
        if ask is not None:
            ask.per_byte = per_byte
        elif seen is not None:
            ask = ask_of(seen, hint, per_byte)
        return model, self._best(view, NOBODY, ask)

    def resolve(self, model: str) -> str:
        """The concrete id behind an alias; other names are their own."""
        return resolve(self._profiles.current, model)

    def check(self, model: str, principal: Principal) -> None:
        """Refuse what needs no waiting to be refused.

        Args:
            model: A concrete id.

        Raises:
            HelexaError: Why, see ``routing.decide``; ``Forbidden`` when the key may not.
        """
        if principal.models and not self._allowed(model, principal):
            raise Forbidden(f"This key may not use the model {model!r}.", param="model")
        decision = self._view(model).decision
        if isinstance(decision, Refuse):
            raise decision.error
        if (
            isinstance(decision, Wake)
            and not principal.may_load
            and not self._residency.queued(model)
        ):
            raise not_for_you(model)

    def now(
        self,
        model: str,
        avoid: AbstractSet[str] = NOBODY,
        ask: Ask | None = None,
        need: str = "text",
    ) -> Placed | None:
        """The best node that can take the request at once.

        Args:
            avoid: Nodes that have just failed it.
            ask: Its prompt, where known.
            need: What the model must be able to do.
        """
        view = self._view(model)
        if need in view.lacking:
            view = self._able(model, view, need)
        if len(view.candidates) < 2:
            return self._only(view, avoid)
        return self._best(view, avoid, ask)

    def _only(self, view: _View, avoid: AbstractSet[str]) -> Placed | None:
        """Without a choice there is nothing to predict."""
        if not view.candidates or view.candidates[0].node in avoid:
            return None
        found = view.candidates[0]
        return Placed(found.node, found.work)

    def _best(self, view: _View, avoid: AbstractSet[str], ask: Ask | None) -> Placed | None:
        if ask is None:
            self._turn += 1
            ask = Ask(seed=self._turn)
        choice = self.router.choose(view.field, ask, avoid)
        if choice is None:
            return None
        found = choice.winner
        return Placed(found.node, found.work, ask, choice)

    async def later(
        self,
        model: str,
        principal: Principal,
        avoid: AbstractSet[str],
        deadline: float | None,
        told: Callable[[Waiter], object] = lambda _: None,
        need: str = "text",
    ) -> Placed:
        """Wait for a node that can, loading the model if need be.

        Args:
            deadline: Loop time after which waiting is of no use; None is ``max_wait_s`` from now.
            told: Called with the place in line, which knows how long it will take.

        Raises:
            HelexaError: Nothing to wait for, or not in time (``ModelLoading`` with what is
                known about when).
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + self._max_wait_s
        # Estimates err: without a wish of its own, a request is not turned away for a little.
        patience = limit + self._max_wait_s / 2
        if deadline is not None:
            limit, patience = min(limit, deadline), min(patience, deadline)
        waiter = self._residency.join(model, patience, may_load=principal.may_load)
        told(waiter)
        try:
            async with asyncio.timeout_at(limit):
                return await self._place(waiter, avoid, need, principal)
        except TimeoutError:
            standing = waiter.standing(loop.time())
            raise still_loading(model, standing) from None
        finally:
            # A step later, when whoever asked has its lease: in between it would count as nobody,
            # and one more be let in for it.
            loop.call_soon(waiter.leave)

    def lease(self, placed: Placed, model: str) -> Lease:
        """Count the request as that node's work."""
        if placed.choice is not None and placed.ask is not None:
            return self.router.take(placed.choice, placed.ask)
        if placed.work is None:
            return self.leases.take(placed.node, model)
        return Lease(placed.work, self.leases.clock)

    def learn(
        self, model: str, placed: Placed, usage: Usage | None, timings: Timings | None
    ) -> None:
        """A request that went to a place has ended; what it told, if it was answered."""
        work = placed.work
        if work is None:
            return
        if usage is None:
            self.router.gave_up(work)
            return
        believed = 0.0 if placed.choice is None else placed.choice.cached
        self.router.learn(model, work, placed.ask, believed, usage, timings)

    def failed(self, placed: Placed, kind: Kind) -> None:
        """A request failed at a place; refusals are no failures."""
        if placed.work is not None:
            self.router.failed(placed.work, kind)
            if kind == "connection":
                self._fleet.poll_now(placed.node)

    def progress(self, model: str) -> tuple[float | None, float | None]:
        """Progress (0 to 1) and seconds left of a load that is under way, where known."""
        decision = self._decide(model, NOBODY)
        return (decision.progress, decision.eta_s) if isinstance(decision, Wait) else (None, None)

    async def _place(
        self, waiter: Waiter, avoid: AbstractSet[str], need: str, principal: Principal
    ) -> Placed:
        """The place of somebody whose turn has come."""
        while True:
            await waiter.turn()
            view = self._view(waiter.model)
            if need in view.lacking:  # now that it is loaded, its node tells
                self._ably(waiter.model, view, need, principal)
            placed = self.now(waiter.model, avoid, None, need)
            if placed is not None:
                placed.cold = waiter.cold
                return placed
            if avoid:
                raise ServiceUnavailable(
                    f"The nodes that have {waiter.model!r} have just failed.",
                    retry_after_s=SOON_S,
                )
            waiter.again()

    def _allowed(self, model: str, principal: Principal) -> bool:
        return any(self.resolve(name) == model for name in principal.models)

    def _decide(self, model: str, avoid: AbstractSet[str]) -> Decision:
        if not avoid:
            return self._view(model).decision
        return self._decision(model, self._profiles.current, self._fleet.snapshot(), avoid)

    def _decision(
        self,
        model: str,
        profiles: Profiles,
        fleet: FleetSnapshot,
        avoid: AbstractSet[str] = NOBODY,
    ) -> Decision:
        """``decide``, where a place that is about to go for another model takes nothing new."""
        closing = self._residency.closing(model)
        decision = decide(model, profiles, fleet, avoid | closing if closing else avoid)
        if closing and isinstance(decision, Refuse):
            return Wait(tuple(closing))
        return decision

    def _view(self, model: str) -> _View:
        fleet, profiles = self._fleet.snapshot(), self._profiles.current
        version = self._residency.version
        if (
            fleet is not self._fleet_seen
            or profiles is not self._profiles_seen
            or version != self._version_seen
        ):
            if fleet is not self._fleet_seen:
                self.leases.reconcile(fleet.nodes)
            self._last, self._views = self._views, {}
            self._fleet_seen, self._profiles_seen, self._version_seen = fleet, profiles, version
        view = self._views.get(model)
        if view is None:
            view = self._make_view(model, fleet, profiles)
            if not isinstance(view.decision, Refuse):
                # Names that nobody serves come from clients and would grow without bound.
                self._views[model] = view
        return view

    def _make_view(self, model: str, fleet: FleetSnapshot, profiles: Profiles) -> _View:
        decision = self._decision(model, profiles, fleet)
        nodes = decision.nodes if isinstance(decision, Serve) else ()
        candidates = tuple(self._candidate(node, model) for node in nodes)
        told = [able.told_by(node, model) for node in nodes]
        if isinstance(decision, Wake):
            possible = (node for node in fleet.nodes if node.name in decision.nodes)
            told.append(able.told_asleep(decision.profile.capabilities, possible, model))
        return _View(
            model,
            decision,
            candidates,
            queued=self._residency.queued(model),
            lacking=able.lacking(told),
            before=self._last.get(model),
        )

    def _able(self, model: str, view: _View, need: str) -> _View:
        """The view without the places that cannot do what is needed."""
        nodes = view.decision.nodes if isinstance(view.decision, Serve) else ()
        fit = {node.name for node in nodes if able.can(able.told_by(node, model), need)}
        candidates = tuple(found for found in view.candidates if found.node in fit)
        return _View(model, view.decision, candidates, queued=view.queued)

    def _ably(
        self, model: str, view: _View, need: str, principal: Principal, seen: Peek | None = None
    ) -> _View:
        """As ``_able``, where there has to be one.

        Args:
            seen: The request, for the path of an image in it.

        Raises:
            UnsupportedOperation, VisionUnsupported: None of them can.
        """
        path = None
        if need == "vision" and seen is not None:
            path = first_image(seen.prompt)
            if path is None:
                return view  # what looked like an image was none
        found = self._able(model, view, need)
        if not found.candidates:
            fleet, profiles = self._fleet.snapshot(), self._profiles.current
            others = able.who_can(need, profiles, fleet, principal)
            raise able.cannot(model, need, others, path)
        return found

    def _candidate(self, node: NodeSnapshot, model: str) -> Candidate:
        """Made anew only when the place has changed: a fleet changes with every report."""
        capacity = max(1, node.models[model].load.max_in_flight)
        work = self.leases.work(node.name, model)
        known = work.candidate
        if known is None or known.capacity != capacity:
            known = work.candidate = Candidate(node.name, capacity, work)
        return known
