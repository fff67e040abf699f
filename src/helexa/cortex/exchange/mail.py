"""What nodes are told of their requests: higher grants at once, and in batches what was booked, so
that they can forget its record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from helexa.core.errors import HelexaError
from helexa.core.fleet import Ack, GrantUpdate
from helexa.cortex.fleet.client import Answer, NodeApi
from helexa.cortex.ledger.base import RequestKey
from helexa.wire.errors import from_wire

_BATCH = 2000
_TIMEOUT_S = 3.0


@dataclass(slots=True)
class NodeMail:
    """What waits to be told to one node."""

    grants: dict[str, int] = field(default_factory=dict)
    acks: dict[RequestKey, int | None] = field(default_factory=dict)
    """What was booked, until it has been compared with the node's record."""
    passed: set[RequestKey] = field(default_factory=set)
    """Acknowledgements that were due before their records had come, and waited a round."""
    telling: asyncio.Task[None] | None = None
    """Grants: requests run on them, so they wait for nothing but the node."""
    acking: asyncio.Task[None] | None = None
    """Acknowledgements, which wait for the ledger as well."""

    def due(self) -> list[RequestKey]:
        """What the node may forget now. It tells of an end a moment later, and what was forgotten
        by then could not be compared any more: so a record gets a round to come by."""
        due = [key for key, booked in self.acks.items() if booked is None or key in self.passed]
        self.passed = self.acks.keys() - due
        return due


class Mail:
    """The mail of every node; what could not be delivered waits for the next round.

    Args:
        api: A node's management routes by name; None for a node that is gone.
        nodes: Names of the nodes that there are.
        written: Returns once everything booked so far is durable.
    """

    def __init__(
        self,
        api: Callable[[str], NodeApi | None],
        written: Callable[[], Awaitable[None]],
        nodes: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._api = api
        self._present = nodes
        self._written = written
        self._nodes: dict[str, NodeMail] = {}

    def to(self, node: str) -> NodeMail:
        """What waits for ``node``; whatever is added goes with the next round."""
        mail = self._nodes.get(node)
        if mail is None:
            mail = self._nodes[node] = NodeMail()
        return mail

    def grant(self, node: str, request_id: str, granted: int) -> None:
        """Tell a node now how far a request may go."""
        mail = self.to(node)
        mail.grants[request_id] = max(granted, mail.grants.get(request_id, 0))
        self._tell(node, mail)

    def send(self) -> None:
        """Deliver what waits."""
        for node, mail in list(self._nodes.items()):
            if mail.grants:
                self._tell(node, mail)
            if mail.acks and _idle(mail.acking):
                mail.acking = asyncio.ensure_future(self._deliver(self._ack_all(node, mail)))

    def _tell(self, node: str, mail: NodeMail) -> None:
        if _idle(mail.telling):
            mail.telling = asyncio.ensure_future(self._deliver(self._tell_grants(node, mail)))

    async def _deliver(self, posts: Awaitable[None]) -> None:
        with contextlib.suppress(HelexaError):  # it is tried again with the next round
            await posts

    async def _tell_grants(self, node: str, mail: NodeMail) -> None:
        """Post grants, and those that come meanwhile."""
        while mail.grants:
            grants, mail.grants = mail.grants, {}
            api = self._api(node)
            if api is None:
                return
            body = [GrantUpdate(request, granted) for request, granted in grants.items()]
            try:
                _accepted(await api.post("/requests/grants", body, _TIMEOUT_S))
            except HelexaError:
                mail.grants = grants | mail.grants  # what came meanwhile is newer
                raise

    def _forward(self, node: str) -> None:
        """A node has gone, or has another name now: whoever knows such a request may forget it,
        and to the others it says nothing."""
        present = tuple(self._present())
        if present:
            acks = self._nodes.pop(node, NodeMail()).acks
            for name in present:
                self.to(name).acks = acks | self.to(name).acks

    async def _ack_all(self, node: str, mail: NodeMail) -> None:
        """Post acknowledgements; those that come meanwhile go with the next round."""
        due = mail.due()
        for start in range(0, len(due), _BATCH):
            api = self._api(node)
            if api is None:
                self._forward(node)
                return
            batch = due[start : start + _BATCH]
            # A node forgets what it is told to; until our books would survive us, it must not.
            await self._written()
            _accepted(await api.post("/requests/ack", [Ack(*key) for key in batch], _TIMEOUT_S))
            for key in batch:
                mail.acks.pop(key, None)


def _idle(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()


def _accepted(answer: Answer) -> None:
    """Return unless telling it again later may help; what a node cannot read, it never will.

    Raises:
        HelexaError: The node could not just now, or did not believe that it is us.
    """
    if answer.status >= 500 or answer.status in (401, 403, 408, 429):
        raise from_wire(answer.status, answer.body)
