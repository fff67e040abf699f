"""What the answers to several prompts have cost together."""

from __future__ import annotations

from collections.abc import Iterable

from helexa.neuron.engines.base import Meter
from helexa.neuron.stream import AnswerStream, Billed

Counts = tuple[int, int, int, int, int]


class Together:
    """Sums over answers; those that have ended are kept as numbers only.

    Args:
        cuttable: An answer that is not whole is one all the same.
    """

    def __init__(self, *, cuttable: bool = True) -> None:
        self._cuttable = cuttable
        self._streams: dict[object, AnswerStream] = {}
        self._ended: Counts = (0, 0, 0, 0, 0)
        self._times = Meter()  # of those that have ended: milliseconds, and whether estimated

    def add(self, part: object, stream: AnswerStream) -> None:
        """One more begins."""
        self._streams[part] = stream

    def leave(self, part: object) -> None:
        """One has ended; idempotent."""
        stream = self._streams.pop(part, None)
        if stream is not None:
            self._ended = _sum((self._ended, _counts(stream)))
            _add_times(self._times, stream.meter)

    @property
    def accepted(self) -> bool:
        """The engine has accepted a prompt, so that there is something to cut."""
        begun = self._ended[0] > 0 or any(stream.accepted for stream in self._streams.values())
        return begun and self._cuttable

    def counts(self) -> Counts:
        """The members of ``billed``."""
        return _sum((self._ended, *map(_counts, self._streams.values())))

    def billed(self) -> Billed:
        """The cost as it stands; never more than the grant, which all take from."""
        return Billed(*self.counts())

    def abandon(self) -> None:
        """Nobody reads on."""
        for stream in self._streams.values():
            stream.abandon()

    def meter(self) -> Meter:
        """For the usage of all: what is billed, and the time it took the engine."""
        prompt, cached, output, reasoning, _ = self.counts()
        meter = Meter(prompt, prompt, cached, output, reasoning, prompt_known=True)
        for other in (self._times, *(stream.meter for stream in self._streams.values())):
            _add_times(meter, other)
        return meter


def _counts(stream: AnswerStream) -> Counts:
    billed = stream.billed()
    return billed.prompt, billed.cached, billed.output, billed.reasoning, billed.discarded


def _sum(counts: Iterable[Counts]) -> Counts:
    prompt, cached, output, reasoning, discarded = map(sum, zip(*counts, strict=True))
    return prompt, cached, output, reasoning, discarded


def _add_times(meter: Meter, other: Meter) -> None:
    meter.prompt_ms += other.prompt_ms
    meter.predicted_ms += other.predicted_ms
    meter.estimated = meter.estimated or other.estimated
