"""A request's grant: how many tokens it may still cost, and what happens at the edge.

::

    0        used                granted−low_water      granted
    ├─────────┼───────────────────────┼────────────────────┤
      billed      may be forwarded       `low` fired once     edge: wait for a raise, then cut

A grant is absolute and covers prompt + output. It only ever grows. ``GrantGate`` is the pure
decision; ``Grant`` adds the bell that wakes a request waiting at the edge.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from helexa.relay.vanished import LOST_SECS

PATIENT_S: Final = LOST_SECS
"""So long a gateway that follows our events is waited for while it has not answered: what it does
not come to say, or a network that is away for a moment does not carry, is not that a budget is
spent. After so long its connections are given up, and the answer with them."""


@dataclass(slots=True)
class GrantGate:
    """Counts tokens against a grant that can be raised.

    Args:
        granted: Tokens in all, prompt included; None is unlimited (a caller without a gateway).
        low_water: ``low`` fires when no more than this is left; half a slice.

    Invariant: ``used <= granted`` at all times, whatever the order of calls.
    """

    granted: int | None
    low_water: int = 256
    used: int = 0
    _announced: int = -1

    @property
    def left(self) -> int | None:
        """Tokens that may still be taken; None is unlimited."""
        return None if self.granted is None else self.granted - self.used

    @property
    def calm(self) -> int | None:
        """Tokens that may be taken without anything to say, hold or cut; None is unlimited."""
        if self.granted is None:
            return None
        left = self.granted - self.used
        if self._announced < self.granted and left > self.low_water:
            return left - self.low_water - 1
        return left

    def fits(self, tokens: int) -> bool:
        """Whether ``tokens`` more stay within the grant."""
        return self.granted is None or self.used + tokens <= self.granted

    def take(self, tokens: int) -> int:
        """Use up to ``tokens`` and say how many were allowed."""
        granted = self.granted
        allowed = tokens if granted is None else min(tokens, granted - self.used)
        self.used += allowed
        return allowed

    def low(self) -> bool:
        """True once per granted amount, as soon as no more than ``low_water`` is left."""
        if self.granted is None or self._announced >= self.granted:
            return False
        if self.granted - self.used > self.low_water:
            return False
        self._announced = self.granted
        return True

    def raise_to(self, granted: int) -> bool:
        """Adopt a higher absolute grant; a lower or equal one changes nothing.

        Returns:
            Whether the grant grew.
        """
        if self.granted is None or granted <= self.granted:
            return False
        self.granted = granted
        return True


@dataclass(slots=True)
class Grant:
    """A gate with a bell: a request at its edge sleeps until the grant grows or time is up."""

    gate: GrantGate
    _bell: asyncio.Event | None = None  # few requests come to their edge
    _answers: int = 0

    def raise_to(self, granted: int) -> bool:
        """As ``GrantGate.raise_to``, and wakes whoever waits at the edge; the grant as it stands
        is the gateway's word that there is no more."""
        grew = self.gate.raise_to(granted)
        if grew or granted == self.gate.granted:
            self._answers += 1
            if self._bell is not None:
                self._bell.set()
        return grew

    async def room_for(self, tokens: int, wait_s: float, patient_s: float = 0.0) -> bool:
        """Wait until ``tokens`` more fit, at most ``wait_s`` seconds behind the gateway's word,
        which raises the grant as far as there is room, or not at all.

        Args:
            patient_s: So long where it has not said any.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(wait_s, patient_s)
        bell = self._bell = self._bell or asyncio.Event()
        answers = self._answers  # several may wait, for a prompt each: all hear it
        while not self.gate.fits(tokens):
            bell.clear()
            remaining = deadline - loop.time()
            if remaining <= 0:
                return False
            try:
                async with asyncio.timeout(remaining):
                    await bell.wait()
            except TimeoutError:
                return self.gate.fits(tokens)
            if self._answers != answers:
                answers = self._answers
                deadline = min(deadline, loop.time() + wait_s)
        return True
