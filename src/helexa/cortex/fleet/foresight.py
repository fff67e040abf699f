"""What would become of the catalogue's models on each node, asked before anybody wants them.

::

    each node × each model of the catalogue ──POST /models/plan──▶ Outlook ─▶ the node's snapshot
      one question per node at a time; again after a while, when the node restarts, when the
      catalogue's entry changes; a node that does not know the question is left alone

So capabilities, limits and feasibility of cold models are true before their first load. Nothing
rests on an outlook that is missing: then the load itself is the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import LoadRequest
from helexa.core.outlook import Outlook
from helexa.cortex.fleet.client import NodeApi
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.wire.bodies import UNREADABLE

PATH = "/models/plan"
ASK_S = 60.0
"""A node may have to ask a hub."""
LOOK_S = 1.0
REFRESH_S = 300.0
AGAIN_S = 15.0
"""After an answer that may soon be another: a missing file, a question that was not answered. Twice
as long each time in a row, up to ``REFRESH_S``: the answer may cost a hub a look."""
OLD_NODE_S = 600.0


@dataclass(slots=True)
class _Asked:
    """What was asked of a node for one model, and when it is to be asked again."""

    spec: LoadRequest
    epoch: int | None
    again_at: float
    refused: int = 0


@dataclass(slots=True)
class _Node:
    """What was asked of one node and what it said, over one way to it: another way, after a change
    of cortex.toml, may lead to another machine, and a snapshot begun anew holds none of this."""

    api: NodeApi
    asked: dict[str, _Asked] = field(default_factory=dict)
    outlooks: dict[str, Outlook] = field(default_factory=dict)
    old_until: float = 0.0
    busy: bool = False


class Foresight:
    """Owner of the outlooks; ``run`` until cancelled.

    Args:
        wanted: The catalogue's models as they would be loaded.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        wanted: Callable[[], Mapping[str, LoadRequest]],
        now: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._wanted = wanted
        self._now = now
        self._nodes: dict[str, _Node] = {}
        self._bell = asyncio.Event()

    async def run(self) -> None:
        """Ask what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._bell.clear()
                wanted = self._wanted()
                fleet = self._fleet.snapshot()
                self._forget(wanted, {node.name for node in fleet.nodes})
                for node in fleet.reachable:
                    self._begin(group, node, wanted)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._bell.wait()

    def _begin(
        self, group: asyncio.TaskGroup, node: NodeSnapshot, wanted: Mapping[str, LoadRequest]
    ) -> None:
        """Ask a node its next question, unless it is at one."""
        api = self._fleet.api(node.name)
        if api is None:
            return
        known = self._nodes.get(node.name)
        if known is None or known.api is not api:
            known = self._nodes[node.name] = _Node(api)
        if known.busy or known.old_until > self._now() or node.discovery is None:
            return
        model = next((m for m, spec in wanted.items() if self._due(known, node, m, spec)), None)
        if model is not None:
            known.busy = True
            group.create_task(self._ask(node, known, model, wanted[model]))

    def _due(self, known: _Node, node: NodeSnapshot, model: str, spec: LoadRequest) -> bool:
        asked = known.asked.get(model)
        if asked is None or asked.spec != spec:
            return True
        if asked.epoch is None:
            asked.epoch = node.epoch  # it had not said so yet
        return asked.epoch != node.epoch or asked.again_at <= self._now()

    async def _ask(self, node: NodeSnapshot, known: _Node, model: str, spec: LoadRequest) -> None:
        try:
            outlook = await self._answer(known, spec)
        finally:
            known.busy = False
            self._bell.set()
        if self._fleet.api(node.name) is not known.api:
            return  # whoever has that name by now was not asked
        before = known.asked.get(model)
        fine = outlook is not None and (outlook.ok or outlook.possible)
        same = before is not None and (before.spec, before.epoch) == (spec, node.epoch)
        refused = 0 if fine else before.refused + 1 if before is not None and same else 1
        wait = REFRESH_S if fine else min(REFRESH_S, AGAIN_S * 2.0 ** min(refused - 1, 10))
        known.asked[model] = _Asked(spec, node.epoch, self._now() + wait, refused)
        if outlook is not None and outlook != known.outlooks.get(model):
            known.outlooks = {**known.outlooks, model: outlook}
            self._fleet.foretold(node.name, known.outlooks)

    async def _answer(self, known: _Node, spec: LoadRequest) -> Outlook | None:
        """What the node says; None when it says nothing of use."""
        try:
            answer = await known.api.post(PATH, spec, ASK_S)
            if answer.status in (404, 405):
                known.old_until = self._now() + OLD_NODE_S
            if answer.status != 200:
                return None
            return msgspec.json.decode(answer.body, type=Outlook)
        except (HelexaError, *UNREADABLE):
            return None

    def _forget(self, wanted: Mapping[str, LoadRequest], nodes: set[str]) -> None:
        """Keep what is about these models and nodes."""
        for name in [name for name in self._nodes if name not in nodes]:
            del self._nodes[name]
        for name, known in self._nodes.items():
            gone = known.asked.keys() - wanted.keys()
            for model in gone:
                del known.asked[model]
            if known.outlooks.keys() - wanted.keys():
                known.outlooks = {m: o for m, o in known.outlooks.items() if m in wanted}
                self._fleet.foretold(name, known.outlooks)
