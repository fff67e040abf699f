"""What the log says of nodes that come and go: each change once, with the node's reason.

::

    unknown ──answers──▶ reachable ──three strikes──▶ unreachable: why
       └────three strikes──▶ unreachable: why ──another reason──▶ why, once each
                                 └──answers──▶ reachable
"""

from __future__ import annotations

from helexa.core.logging import Logger
from helexa.cortex.fleet.snapshot import NodeSnapshot

_REASONS = 8
"""Of one absence that are said; a node whose reasons never repeat must not fill the log."""


class NodeNews:
    """Follows every node's snapshot and tells people what has changed."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._away: dict[str, set[str]] = {}
        self._here: set[str] = set()

    def heard(self, node: NodeSnapshot) -> None:
        """A node's snapshot is new; costs two look-ups while nothing has changed."""
        if node.reachable:
            if node.name not in self._here:
                self._arrived(node)
        elif node.state == "unreachable":
            self._left(node)
        else:
            self._here.discard(node.name)  # it was taken out and is back under its old name

    def _arrived(self, node: NodeSnapshot) -> None:
        self._away.pop(node.name, None)
        self._here.add(node.name)
        self._log.info("node", what="reachable", node=node.name, endpoint=node.endpoint)

    def _left(self, node: NodeSnapshot) -> None:
        self._here.discard(node.name)
        said, why = self._away.setdefault(node.name, set()), node.error or "it does not answer"
        if why not in said and len(said) < _REASONS:
            said.add(why)
            self._log.warning(
                "node", what="unreachable", node=node.name, endpoint=node.endpoint, reason=why
            )
