"""What every cleaner of a stream does alike: give the answer whole, end it, fail.

An engine's own cleaner takes its events and keeps the state of each choice; see ``base.Cleaner``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from helexa.core.errors import HelexaError, UpstreamConnectionError
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.render import DONE, Ending, Envelope

_finish = attrgetter("finish")
State = TypeVar("State", bound=Ending)
_Of_contra = TypeVar("_Of_contra", contravariant=True)


class Endings(Protocol[_Of_contra]):
    """How a choice ends in one dialect (chat or legacy text)."""

    def finish(self, state: _Of_contra, why: str | None) -> bytes:
        """The finish chunk of a choice."""

    def whole(self, state: _Of_contra) -> dict[str, object]:
        """The choice of a plain answer."""


class EndingCleaner(Generic[State]):
    """The part of a cleaner that knows no engine.

    Args:
        envelope, dialect: Of the clean answer.
        served: Whose engine it is, for what went wrong.
        meter: What the engine's events are counted with.
    """

    def __init__(
        self, envelope: Envelope, dialect: Endings[State], served: Served, meter: Meter
    ) -> None:
        self.meter = meter
        self.finish_reason: str | None = None
        self.failed: HelexaError | None = None
        self.done = False
        self._envelope = envelope
        self._endings = dialect
        self._served = served
        self._why: str | None = None
        self._choices: dict[int, State] = {}

    def close(self, finish: str, why: str | None) -> bytes:
        """End the answer ourselves with the counts as they stand."""
        if self.done:
            return b""
        self._why = why
        out = []
        for state in self._states():
            if state.finish is None:
                state.finish = finish
                out.append(self._endings.finish(state, why))
        self.finish_reason = finish
        return b"".join(out) + self._terminate()

    def whole(self) -> bytes:
        """The plain answer for everything fed so far."""
        choices = [self._endings.whole(state) for state in self._states()]
        return self._envelope.whole(choices, self.meter, self._why)

    def _states(self) -> list[State]:
        """What there is of every choice, in order; of the first at least."""
        choices = self._choices
        if len(choices) == 1:
            return [*choices.values()]
        return [state for _, state in sorted(choices.items())]

    def _finished(self) -> bool:
        """Whether every choice that began has ended."""
        return None not in map(_finish, self._choices.values())

    def _engine_done(self) -> bytes:
        """The engine's last word."""
        if not self._finished():
            return self._fail(self._garbage())
        self.finish_reason = self._states()[0].finish
        return self._terminate()

    def _terminate(self) -> bytes:
        self.done = True
        return self._envelope.usage(self.meter) + DONE

    def _garbage(self) -> HelexaError:
        return UpstreamConnectionError(
            f"The engine of {self._served.model_id} sent something that is not an answer."
        )

    def _fail(self, error: HelexaError) -> bytes:
        self.failed = error
        self.done = True
        return b""
