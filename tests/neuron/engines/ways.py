"""An engine's stream on its way through a cleaner: the long way, or the short one first."""

from __future__ import annotations

from dataclasses import dataclass

from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.grants import GrantGate
from helexa.neuron.stream import AnswerStream


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

    def __post_init__(self) -> None:
        self.cleaner = self.asked.cleaner
        self.stream = AnswerStream(
            self.cleaner,
            GrantGate(self.granted, self.low_water),
            Pool(self.cells),
            kv_slice=32,
            splicer=self.asked.splice,
        )

    def take(self, payload: bytes) -> tuple[object, ...]:
        """What a chunk came to."""
        out = b""
        if self.short:
            out = self.stream.splice(framed(payload))
            self.spliced += bool(out)
        if not out:
            step = self.stream.push(payload)
            out = step.out
            if step.edge == "grant":
                self.stream.gate.raise_to((self.stream.gate.granted or 0) + 100)
                out += self.stream.resume().out
        gate = self.stream.gate
        low = gate.low()
        failed = repr(self.cleaner.failed)
        return out, low, gate.used, self.stream.counts(), str(self.cleaner.meter), failed
