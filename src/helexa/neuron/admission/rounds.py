"""Deficit round robin whose prices are known only afterwards.

Each principal has a deficit in tokens. Whoever is chosen moves to the end of the ring; what its
requests really cost is charged while they run, and may push the deficit below zero. Only a
principal above zero can be chosen; when nobody is, everyone gets a quantum per round, as many
rounds at once as the best placed needs.

Two principals that always wait are never further apart than one quantum and what their seats
cost: the classic bound (Shreedhar & Varghese, 1995) plus the charges that are still to come.
"""

from __future__ import annotations

from collections.abc import Collection

QUANTUM = 512
MOST_DEBTORS = 4096


class Rounds:
    """The ring.

    Args:
        quantum: Tokens per principal and round.
    """

    def __init__(self, quantum: int = QUANTUM) -> None:
        self._quantum = quantum
        self._ring: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ring)

    def deficit(self, principal: str) -> int:
        """Tokens ``principal`` may still take in this round; negative is debt."""
        return self._ring.get(principal, 0)

    def join(self, principal: str) -> None:
        """``principal`` has something waiting or running."""
        self._ring.setdefault(principal, 0)

    def charge(self, principal: str, tokens: int) -> None:
        """``principal`` has cost ``tokens``."""
        self._ring[principal] = self._ring.get(principal, 0) - tokens

    def leave(self, principal: str) -> None:
        """``principal`` has nothing left here. Credit is lost; debt waits for its return."""
        if self._ring.get(principal, 0) >= 0:
            self._ring.pop(principal, None)
        elif len(self._ring) > MOST_DEBTORS:
            del self._ring[principal]

    def order(self, candidates: Collection[str], waiting: Collection[str]) -> list[str]:
        """``candidates`` in the order they are to be seated.

        A round is over when everyone who waits is in debt, not when the candidates are: those
        that only a reserved seat makes candidates must not start one for all.

        Args:
            candidates: Those that could be seated now; at least one.
            waiting: All that wait; they keep their credit, the others' ends at zero.
        """
        best = max(self.deficit(name) for name in waiting)
        if best <= 0:
            self._advance(-best // self._quantum + 1, waiting)
        ring = {principal: place for place, principal in enumerate(self._ring)}

        def turn(name: str) -> tuple[int, int]:
            deficit = self.deficit(name)
            return (0, ring.get(name, len(ring))) if deficit > 0 else (1, -deficit)

        return sorted(candidates, key=turn)

    def seated(self, principal: str) -> None:
        """``principal`` was chosen: it goes to the end of the ring."""
        self._ring[principal] = self._ring.pop(principal, 0)

    def _advance(self, rounds: int, waiting: Collection[str]) -> None:
        gain = rounds * self._quantum
        for principal, deficit in list(self._ring.items()):
            raised = deficit + gain
            if principal not in waiting:
                raised = min(raised, max(deficit, 0))
            self._ring[principal] = raised
