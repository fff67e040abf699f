"""Counters, gauges and histograms that cost next to nothing to write.

A *family* is a name with label names; a *child* is one label set of it, bound once and kept by
whoever counts. Writing is an integer addition on a slot, so there is no lock; the event loop owns
them. ``exposition`` renders the Prometheus text format.

A family holds at most ``max_children`` label sets; what comes after shares one child whose
labels all read ``other``. Labels come from the catalogue and the key table, never from a
client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
MAX_CHILDREN = 10_000
OTHER = "other"

FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
DURATION_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
RATE_BUCKETS = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 200.0)
GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0)
LAG_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Child(Protocol):
    """One label set; yields (name suffix, further labels, value)."""

    def samples(self) -> Iterator[tuple[str, str, float]]: ...


C = TypeVar("C", bound=Child)


class Counter:
    """Only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        """Add ``by``, which is not negative."""
        self.value += by

    def samples(self) -> Iterator[tuple[str, str, float]]:
        yield "", "", self.value


class Gauge:
    """Goes both ways."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, to: float) -> None:
        """The value as it is now."""
        self.value = to

    def inc(self, by: float = 1) -> None:
        """Add ``by``."""
        self.value += by

    def dec(self, by: float = 1) -> None:
        """Take ``by`` away."""
        self.value -= by

    def samples(self) -> Iterator[tuple[str, str, float]]:
        yield "", "", self.value


class Histogram:
    """Counts of observations by upper bound (inclusive), and their sum.

    ``counts`` are per bucket, not cumulative; the last one is everything above all bounds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_bucket_counts(self, counts: Sequence[int], total: float) -> None:
        """Add what somebody else has counted with the same bounds (as ``counts`` above)."""
        if len(counts) != len(self.counts):
            raise ValueError(f"{len(counts)} buckets for a histogram of {len(self.counts)}")
        mine = self.counts
        for index, count in enumerate(counts):
            mine[index] += count
        self.total += total

    def samples(self) -> Iterator[tuple[str, str, float]]:
        seen = 0
        # The counts are copied so that buckets, +Inf and _count agree with each other.
        for bound, count in zip((*self.bounds, None), list(self.counts), strict=True):
            seen += count
            text = "+Inf" if bound is None else number(bound)
            yield "_bucket", f'le="{text}"', seen
        yield "_count", "", seen
        yield "_sum", "", self.total


class Family(Generic[C]):
    """Every label set of one metric."""

    __slots__ = ("_children", "_make", "_max", "help", "kind", "label_names", "name")

    def __init__(
        self,
        name: str,
        text: str,
        label_names: tuple[str, ...],
        *,
        kind: str,
        make: Callable[[], C],
        max_children: int = MAX_CHILDREN,
    ) -> None:
        self.name = name
        self.help = text
        self.label_names = label_names
        self.kind = kind
        self._make = make
        self._max = max_children
        self._children: dict[tuple[str, ...], C] = {}

    def labels(self, *values: str) -> C:
        """The child of these label values; keep it instead of asking again per request."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
            if len(self._children) >= self._max:
                values = (OTHER,) * len(values)
            child = self._children.setdefault(values, self._make())
        return child

    def forget(self, *values: str) -> None:
        """Stop exporting a label set whose subject is gone."""
        self._children.pop(values, None)

    def label_sets(self) -> set[tuple[str, ...]]:
        """The label values that are exported now."""
        return set(self._children)

    def lines(self) -> Iterator[str]:
        """The family in the text format; nothing while it has no child."""
        children = list(self._children.items())
        if not children:
            return
        yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        for values, child in children:
            labels = ",".join(
                f'{name}="{escape(value)}"'
                for name, value in zip(self.label_names, values, strict=True)
            )
            for suffix, more, value in child.samples():
                inside = f"{labels},{more}" if labels and more else labels or more
                shown = f"{{{inside}}}" if inside else ""
                yield f"{self.name}{suffix}{shown} {number(value)}\n"


class Registry:
    """The families of one process.

    Args:
        prefix: Put before every name, for example ``cortex_``.
    """

    __slots__ = ("_before", "_families", "_prefix")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}
        self._before: list[Callable[[], object]] = []

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        """A family of counters; ``name`` ends in ``_total`` by convention."""
        family = Family(self._prefix + name, text, labels, kind="counter", make=Counter)
        self._add(family)
        return family

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        """A family of gauges."""
        family = Family(self._prefix + name, text, labels, kind="gauge", make=Gauge)
        self._add(family)
        return family

    def histogram(
        self, name: str, text: str, *labels: str, bounds: Sequence[float]
    ) -> Family[Histogram]:
        """A family of histograms with these upper bounds, ascending."""

        def make() -> Histogram:
            return Histogram(bounds)

        family = Family(self._prefix + name, text, labels, kind="histogram", make=make)
        self._add(family)
        return family

    def before_collect(self, update: Callable[[], object]) -> None:
        """Call ``update`` on the loop before each rendering, to set gauges that are derived."""
        self._before.append(update)

    def update(self) -> None:
        """Run what was given to ``before_collect``."""
        for update in self._before:
            update()

    def lines(self) -> Iterator[str]:
        """The text format piece by piece, so that a loop can breathe between two of them."""
        for family in list(self._families.values()):
            yield from family.lines()

    def _add(self, family: Family[Counter] | Family[Gauge] | Family[Histogram]) -> None:
        if family.name in self._families:
            raise ValueError(f"the metric {family.name} exists already")
        self._families[family.name] = family


def exposition(registry: Registry) -> bytes:
    """Everything in the Prometheus text format (``CONTENT_TYPE``)."""
    registry.update()
    return "".join(registry.lines()).encode()


def number(value: float) -> str:
    """A value as Prometheus reads it; whole numbers without a fraction."""
    whole = int(value) if abs(value) < 1e15 else value
    return repr(whole if whole == value else value)


def escape(value: str) -> str:
    """A label value, quoted as the text format wants."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
