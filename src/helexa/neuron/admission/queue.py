"""Those who wait: first come, first served within a principal; bounded over all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from helexa.neuron.admission.ticket import Ticket


class Queue:
    """Waiting tickets by principal; the anonymous ones apart.

    Args:
        depth: Most tickets that wait at once.

    Attributes:
        length: Tickets that wait.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._named: dict[str, deque[Ticket]] = {}
        self._anonymous: deque[Ticket] = deque()
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def __contains__(self, ticket: Ticket) -> bool:
        return any(t is ticket for t in self._line(ticket))

    def __iter__(self) -> Iterator[Ticket]:
        for line in self._named.values():
            yield from line
        yield from self._anonymous

    @property
    def principals(self) -> list[str]:
        """Named principals that wait, the longest waiting first."""
        return list(self._named)

    def head(self, principal: str) -> Ticket:
        """The next ticket of a waiting principal."""
        return self._named[principal][0]

    def first_anonymous(self) -> Ticket | None:
        """The next anonymous ticket."""
        return self._anonymous[0] if self._anonymous else None

    def waiting(self, ticket: Ticket) -> int:
        """How many of the ticket's principal wait."""
        return len(self._line(ticket)) if self.length else 0

    def add(self, ticket: Ticket) -> None:
        """Append; the caller has made room."""
        if ticket.anonymous:
            self._anonymous.append(ticket)
        else:
            self._named.setdefault(ticket.principal, deque()).append(ticket)
        self.length += 1

    def remove(self, ticket: Ticket) -> bool:
        """Take out ``ticket``; False when it does not wait."""
        if ticket not in self:
            return False
        line = self._line(ticket)
        line.remove(ticket)
        self.length -= 1
        if not line and not ticket.anonymous:
            del self._named[ticket.principal]
        return True

    def victim(self, newcomer: Ticket) -> Ticket | None:
        """Who makes room for ``newcomer`` in a full queue; None when nobody has to.

        The newest anonymous ticket; else the newest of a lower priority; else the newest of the
        principal of the same priority with most waiting, if that principal would still have as
        many as the newcomer's. So nobody fills a queue for others. Who has begun stays.
        """
        if newcomer.anonymous:
            return None
        for ticket in reversed(self._anonymous):
            if not ticket.begun:
                return ticket
        lines = [[t for t in line if not t.begun] for line in self._named.values()]
        lines = [line for line in lines if line]
        lowest = min((line[-1].priority for line in lines), default=0)
        last = [line for line in lines if line[-1].priority == lowest]
        longest = max(last, key=len, default=None)
        if longest is None or lowest > newcomer.priority:
            return None
        if lowest == newcomer.priority and len(longest) < self.waiting(newcomer) + 2:
            return None
        return longest[-1]

    def place(self, ticket: Ticket) -> int:
        """How many, itself included, are seated until ``ticket`` is: all of a higher priority,
        and of the same a turn each per round."""
        line = self._line(ticket)
        index = next(i for i, t in enumerate(line) if t is ticket)
        if ticket.anonymous:
            return self.length - len(line) + index + 1
        before = 0
        for name, other in self._named.items():
            if name != ticket.principal and other[0].priority >= ticket.priority:
                equal = other[0].priority == ticket.priority
                before += min(len(other), index + 1) if equal else len(other)
        return index + 1 + before

    def _line(self, ticket: Ticket) -> deque[Ticket]:
        if ticket.anonymous:
            return self._anonymous
        return self._named.get(ticket.principal) or deque()
