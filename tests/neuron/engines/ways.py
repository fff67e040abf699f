"""An engine's stream on its way through a cleaner: the long way, or the short one first.

Whatever is drawn here is drawn for every engine that has a short way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from hypothesis import strategies as st

from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.grants import GrantGate
from helexa.neuron.stream import AnswerStream

TEXTS = st.text(max_size=12) | st.sampled_from(
    ['"}}],"created":', "\\", '\\"', '","', "\n\n", "é", "🙂"]
)
"""What a model says; some of it looks like the form around it."""

GRANTS = st.none() | st.integers(12, 120)
CELLS = st.integers(11, 60) | st.just(10**9)
READS = st.lists(st.integers(1, 4), max_size=40)
"""How many chunks each read of a connection brings."""


def framed(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


@dataclass
class Pool:
    """KV cells with a fixed end."""

    free: int = 10**9
    cells: int = 0

    def extend_cells(self, tokens: int) -> bool:
        if tokens > self.free:
            return False
        self.free -= tokens
        self.cells += tokens
        return True


@dataclass
class Way:
    """One stream through a cleaner; ``short`` offers it chunks first, as a delivery does."""

    asked: EngineRequest
    short: bool
    granted: int | None = None
    cells: int = 10**9
    low_water: int = 32
    spliced: int = 0
    begun: bool = False

    def __post_init__(self) -> None:
        self.cleaner = self.asked.cleaner
        self.stream = AnswerStream(
            self.cleaner,
            GrantGate(self.granted, self.low_water),
            Pool(self.cells),
            kv_slice=32,
            splicer=self.asked.splice,
        )

    def take(self, *payloads: bytes) -> tuple[object, ...]:
        """What the chunks of one read came to."""
        out = b""
        if self.short:
            out = self.stream.splice(b"".join(map(framed, payloads)))
            self.spliced += len(payloads) if out else 0
        if not out:
            step = self.stream.push(b"".join(payloads))
            if step.out and self.short and not self.begun:
                self.begun = True
                self.stream.look_ahead()
            out = step.out
            if step.edge == "grant":
                self.stream.gate.raise_to((self.stream.gate.granted or 0) + 100)
                out += self.stream.resume().out
        gate = self.stream.gate
        low = gate.low()
        failed = repr(self.cleaner.failed)
        return out, low, gate.used, self.stream.counts(), str(self.cleaner.meter), failed


def chunk_of(draw: st.DrawFn, one: bytes, more: bytes) -> bytes:
    """``one`` as it mostly comes: whole and alone. Else a byte is damaged, or there is more."""
    if not draw(st.integers(0, 19)):
        at = draw(st.integers(0, len(one) - 3))
        one = one[:at] + draw(st.binary(min_size=1, max_size=1)) + one[at + 1 :]
    return one if draw(st.integers(0, 9)) else one + more


def same_on_both(long: Way, short: Way, chunks: Iterable[bytes], read: Iterable[int] = ()) -> None:
    """Hold the short way against the long one, read by read, and at the end.

    Args:
        read: How many chunks each read brings; one, when there is no more to say.
    """
    left, sizes = iter(chunks), iter(read)
    while together := tuple(islice(left, next(sizes, 1))):
        assert short.take(*together) == long.take(*together)
    assert short.stream.cut("length", "drain") == long.stream.cut("length", "drain")
    assert short.stream.billed() == long.stream.billed()
