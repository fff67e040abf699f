"""How many readings of one text a grammar can have at once; each costs the engine at every token.

::

    {"a": {"a": {"a": …      two objects that both begin with "a", in each other d times:
     2  ×  2  ×  2  = 2^d    readings, and the engine stands still for everybody

llama.cpp follows every reading of what was written so far. Alternatives that part soon cost
nothing: by another kind of value, a key that the other cannot have, a constant. Those that still
hold when a value within them begins are multiplied by the readings of that value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from helexa.neuron.engines.llamacpp.grammar.merge import Uncompilable

MOST = 512
"""Readings at once. With many more, to follow them takes an engine longer than a token does."""
_ROUNDS = 64
"""So deep a schema that refers to itself is followed; what only adds up stays below ``MOST``."""
_MOST_COMPARED = 100_000
"""Members that are looked at to tell the alternatives of one place apart."""


@dataclass(slots=True, frozen=True)
class Member:
    """A value under a key: whether it must be there, and the rule for it."""

    needed: bool
    rule: str


@dataclass(slots=True, frozen=True)
class _Object:
    members: Mapping[str, Member]
    extra: str | None

    def at(self, key: str) -> str | None:
        """The rule of what may stand under ``key``."""
        member = self.members.get(key)
        return self.extra if member is None else member.rule

    def values(self) -> list[str]:
        """The rules of all its values."""
        rules = [member.rule for member in self.members.values()]
        return rules if self.extra is None else [*rules, self.extra]


@dataclass(slots=True, frozen=True)
class _Array:
    items: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class _Either:
    options: tuple[str, ...]
    path: str


@dataclass(slots=True, frozen=True)
class _Texts:
    texts: frozenset[str]


_Shape: TypeAlias = _Object | _Array | _Either | _Texts
_Together: TypeAlias = list[list[str]]
"""For each of the alternatives that hold at one place, the rules of what may begin there."""


class TooManyReadings(Uncompilable):
    """Alternatives that begin alike are nested in each other."""


class Readings:
    """What the rules of one schema are, noted while they are compiled."""

    def __init__(self) -> None:
        self._shapes: dict[str, _Shape] = {}

    def note_object(self, rule: str, members: Mapping[str, Member], extra: str | None) -> None:
        """``rule`` is an object; ``extra`` is the rule of values under any other key."""
        self._shapes[rule] = _Object(members, extra)

    def note_array(self, rule: str, items: Iterable[str]) -> None:
        """``rule`` is an array of those."""
        self._shapes[rule] = _Array(tuple(items))

    def note_either(self, rule: str, options: Iterable[str], path: str) -> None:
        """``rule`` is one of those."""
        self._shapes[rule] = _Either(tuple(options), path)

    def note_texts(self, rule: str, texts: Iterable[str]) -> None:
        """``rule`` is one of these texts."""
        self._shapes[rule] = _Texts(frozenset(texts))

    def check(self) -> None:
        """Check that no text has too many.

        Raises:
            TooManyReadings: With the path of the alternatives.
        """
        # The first look takes all alternatives for alike; nearly every schema passes it.
        if self._too_many(exact=False) is None:
            return
        path = self._too_many(exact=True)
        if path is not None:
            raise TooManyReadings(
                path,
                "nests alternatives that begin alike: a text would have too many readings at "
                "once. Let each begin with a required property that tells it apart, such as a "
                "`type` with a const of its own",
            )

    def _too_many(self, *, exact: bool) -> str | None:
        """The path of the first alternatives with too many readings."""
        places = {rule: self._places(shape, exact=exact) for rule, shape in self._shapes.items()}
        counts = dict.fromkeys(self._shapes, 1)
        for _ in range(_ROUNDS):
            before = dict(counts)
            for rule, shape in self._shapes.items():
                counts[rule] = max([1, *(_readings(each, counts) for each in places[rule])])
                if counts[rule] > MOST and isinstance(shape, _Either):
                    return shape.path
            if counts == before:
                break
        return None

    def _places(self, shape: _Shape, *, exact: bool) -> list[_Together]:
        """Where values begin within what is of ``shape``."""
        ends = self._ends(shape) if isinstance(shape, _Either) else [shape]
        objects = [end for end in ends if isinstance(end, _Object)]
        arrays: _Together = [list(end.items) for end in ends if isinstance(end, _Array)]
        size = len(objects) * sum(len(each.members) + 1 for each in objects)
        if exact and size <= _MOST_COMPARED:
            return [arrays, *self._told_apart(objects)]
        return [arrays, [each.values() for each in objects]]

    def _ends(self, shape: _Either) -> list[_Shape | None]:
        """What it may be in the end, through alternatives of alternatives."""
        found: list[_Shape | None] = []
        seen, left = set(shape.options), list(shape.options)
        while left:
            one = self._shapes.get(left.pop())
            if isinstance(one, _Either):
                left += [option for option in one.options if option not in seen]
                seen.update(one.options)
            else:
                found.append(one)
        return found

    def _told_apart(self, objects: list[_Object]) -> Iterable[_Together]:
        """For each value of each object, the values of those that are still like it there."""
        orders = {id(each): {key: n for n, key in enumerate(each.members)} for each in objects}
        for one in objects:
            others = [
                (other, self._parted(one, other), self._parted(other, one), orders[id(other)])
                for other in objects
                if other is not one
            ]
            for place, (key, member) in enumerate(one.members.items()):
                yield [
                    [member.rule],
                    *(
                        [rule]
                        for other, here, there, order in others
                        if (rule := other.at(key)) is not None
                        and place <= here
                        and order.get(key, len(order)) <= there
                    ),
                ]
        yield [[each.extra] for each in objects if each.extra is not None]

    def _parted(self, one: _Object, other: _Object) -> int:
        """The place of the first member of ``one`` after which a text is surely not ``other``."""
        for place, (key, member) in enumerate(one.members.items()):
            rule = other.at(key)
            if member.needed and (rule is None or self._differ(member.rule, rule)):
                return place
        return len(one.members)

    def _differ(self, one: str, other: str) -> bool:
        """Whether no text is of both rules; False where that is not known."""
        first, second = self._shapes.get(one), self._shapes.get(other)
        return (
            isinstance(first, _Texts)
            and isinstance(second, _Texts)
            and first.texts.isdisjoint(second.texts)
        )


def _readings(together: _Together, counts: Mapping[str, int]) -> int:
    """Readings of a place: those of all the values that may begin there."""
    return sum(max((counts.get(rule, 1) for rule in rules), default=1) for rules in together)
