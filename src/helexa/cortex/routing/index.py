"""What of which prompt each place has cached, as far as the gateway can know.

Every place (node, model) has a model of its prefix cache: the points of the prompts that went
there, least recently used first, with the tokens between a point and the one before it. A prompt
is touched from its end to its beginning, so that a point is always older than the one before it:
what is forgotten first is a prompt's end, as the engines do it, and if a point is known then so
is every point before it. That makes the longest known beginning a binary search.

What a place is believed to hold is bounded by its capacity in tokens, what all of them hold
together by a number of points. What an answer says it found cached corrects the belief.

::

    oldest ◀──────────────────────────────────────────────────────────────▶ newest
    [b3 b2 b1 b0] [a9 … a0]   [c1 c0]     first to go: the end of the oldest prompt
"""

from __future__ import annotations

from collections import OrderedDict

from helexa.cortex.routing.ask import Ask

POINTS = 1 << 18
"""Points that the index holds at most; about 190 bytes each, so 50 MB when it is full."""

UNKNOWN_CAPACITY = 100_000.0
"""Tokens a place is believed to cache when its node does not say."""

_TOKEN_BITS = 24
_TOKENS = (1 << _TOKEN_BITS) - 1
_LEARNS = 0.05
"""A busy place has pushed out what we believe there now and then, and is trusted again later. Who
lost trust faster sent such prompts elsewhere, where they pushed out others, without end."""

_LEAST_TRUST = 0.05
"""Less would tell nothing apart, and nothing could win it back."""

_SLACK_TOKENS = 64.0
"""Templates and block sizes make a cached count differ a little from ours."""


class CacheModel:
    """What one place's prefix cache is believed to hold; changed by its ``AffinityIndex``.

    Attributes:
        held: Points, oldest first; the value is a time in ms, shifted, and tokens.
        used: Tokens between all held points.
        capacity: Tokens it can hold.
        trust: Which part of what we believe to be cached turns out to be, 0 to 1.
    """

    __slots__ = ("capacity", "held", "trust", "used")

    def __init__(self, capacity: float = UNKNOWN_CAPACITY) -> None:
        self.held: OrderedDict[int, int] = OrderedDict()
        self.used = 0
        self.capacity = capacity
        self.trust = 1.0

    def oldest(self) -> float:
        """When what would go next was last used, seconds; 0 where nothing is held."""
        held = self.held
        return (next(iter(held.values())) >> _TOKEN_BITS) / 1000 if held else 0.0

    def match(self, ask: Ask) -> float:
        """Tokens of the longest beginning of a prompt that is held."""
        points, held = ask.points, self.held
        if points and points[-1] in held:
            return ask.sizes[-1] * ask.per_byte
        low, high = 0, len(points)  # points before low are held, those from high on are not
        while low < high:
            middle = (low + high) // 2
            if points[middle] in held:
                low = middle + 1
            else:
                high = middle
        return ask.sizes[low - 1] * ask.per_byte if low else 0.0

    def pop(self) -> int:
        """Forget the oldest point; returns its tokens."""
        tokens = self.held.popitem(last=False)[1] & _TOKENS
        self.used -= tokens
        return tokens


class AffinityIndex:
    """Owner of every place's cache model.

    Args:
        limit: Points over all places.
    """

    def __init__(self, limit: int = POINTS) -> None:
        self._limit = limit
        self._models: OrderedDict[CacheModel, None] = OrderedDict()
        self.points = 0

    @property
    def limit(self) -> int:
        """Points that it holds at most."""
        return self._limit

    def new(self) -> CacheModel:
        """The cache model of a new place."""
        model = CacheModel()
        self._models[model] = None
        return model

    def drop(self, model: CacheModel) -> None:
        """The place is gone."""
        self.clear(model)
        self._models.pop(model, None)

    def clear(self, model: CacheModel) -> None:
        """The place has lost its cache: a restart, a load."""
        self.points -= len(model.held)
        model.held.clear()
        model.used = 0

    def touch(self, model: CacheModel, ask: Ask, now: float) -> None:
        """A prompt goes to a place, which will have all of it cached.

        Args:
            now: Seconds; only differences count.
        """
        held, points = model.held, ask.points
        stamp = int(now * 1000) << _TOKEN_BITS
        known = len(points)
        while known and points[known - 1] not in held:
            known -= 1
        if known < len(points):
            self._add(model, ask, known, stamp)
            points = points[:known]
        for point in reversed(points):
            held[point] = stamp | (held[point] & _TOKENS)
            held.move_to_end(point)
        if self.points > self._limit:
            self._make_room(model)
        if model.used > model.capacity:
            self._trim(model)

    def _add(self, model: CacheModel, ask: Ask, known: int, stamp: int) -> None:
        """The points from ``known`` on, none of which is held."""
        held, points, sizes, per_byte = model.held, ask.points, ask.sizes, ask.per_byte
        for at in range(len(points) - 1, known - 1, -1):
            start = sizes[at - 1] if at else 0
            tokens = int(sizes[at] * per_byte) - int(start * per_byte)
            if tokens > _TOKENS:  # noqa: PLR1730  # a call for each point of a prompt
                tokens = _TOKENS
            held[points[at]] = stamp | tokens
            model.used += tokens
        self.points += len(points) - known

    def learn(
        self, model: CacheModel, ask: Ask, believed: float, cached: int, completion: int
    ) -> None:
        """An answer tells what its place had: correct what we believe.

        Args:
            ask: Its prompt, as it was placed.
            believed: Tokens that we expected to be cached, on what trust we had.
            cached: Tokens that were.
            completion: Tokens of the answer; they are in the cache now, behind the prompt.
        """
        if believed > _SLACK_TOKENS * model.trust:
            found = min(1.0, cached * model.trust / believed)
            model.trust = max(_LEAST_TRUST, model.trust + _LEARNS * (found - model.trust))
        points = ask.points
        value = model.held.get(points[-1]) if points and completion > 0 else None
        if value is not None:
            more = _TOKENS - (value & _TOKENS)
            if more > completion:  # noqa: PLR1730  # a call for each request
                more = completion
            model.held[points[-1]] = value + more
            model.used += more
            if model.used > model.capacity:
                self._trim(model)

    def _trim(self, model: CacheModel) -> None:
        held, capacity = model.held, model.capacity
        while model.used > capacity and held:
            model.pop()
            self.points -= 1

    def _make_room(self, growing: CacheModel) -> None:
        """Points are short: whoever holds more than a fair share gives up its oldest."""
        fair = self._limit // max(1, len(self._models))
        while self.points > self._limit:
            model = growing
            if len(model.held) <= fair:
                model = next(iter(self._models))
                self._models.move_to_end(model)
                if len(model.held) <= fair:
                    continue
            for _ in range(min(len(model.held) - fair, 64)):
                model.pop()
                self.points -= 1
