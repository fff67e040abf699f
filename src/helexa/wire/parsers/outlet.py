"""What a reader lets out: events, with the white space that belongs to a form left behind."""

from __future__ import annotations

from helexa.core.events import (
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
    ToolCallEnded,
)

BLANKS = " \t\r\n"
ReaderEvent = TextDelta | ReasoningDelta | ToolCallBegun | ToolCallArguments | ToolCallEnded


class Outlet:
    """Collects events.

    White space before the first word, before a call, behind the last one, and at both ends of a
    thought is not text of the answer. So it waits for what comes next.

    Args:
        trims: Calls may come, so white space behind any word has to wait.
    """

    __slots__ = ("_behind_call", "_blanks", "_events", "_formed", "_inside", "_thought", "_trims",
                 "calls", "said")  # fmt: skip

    def __init__(self, *, trims: bool) -> None:
        self._trims = trims
        self._events: list[ReaderEvent] = []
        self._blanks: list[str] = []  # what waits; a model may go on writing line ends for long
        self._formed = False  # there was a thought or a call
        self._inside = False  # of a thought
        self._thought = False  # which has words
        self._behind_call = False
        self.said = False
        self.calls = 0

    def take(self) -> list[ReaderEvent]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def text(self, piece: str) -> None:
        """Words of the answer."""
        words = self._words(piece, waits=self._trims or not self.said)
        if not words:
            return
        if self._formed and not self.said:
            words = words.lstrip(BLANKS)
        self.said, self._behind_call = True, False
        self._events.append(TextDelta(words))

    def begin_thought(self) -> None:
        """A thought begins or goes on; white space before the first word is not the answer's."""
        if self._inside:
            return
        if self.said:
            self._release()
        self._blanks = []
        self._formed = self._inside = True
        self._thought = False

    def thought(self, piece: str) -> None:
        """A piece of it."""
        words = self._words(piece, waits=True)
        if words:
            words = words if self._thought else words.lstrip(BLANKS)
            self._thought = True
            self._events.append(ReasoningDelta(words))

    def end_thought(self) -> None:
        """It is over, if there was one."""
        if self._inside:
            self._blanks = []
        self._inside = False

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """A whole call."""
        self._blanks, self._behind_call, self._formed = [], True, True
        index, self.calls = self.calls, self.calls + 1
        self._events.append(ToolCallBegun(index, call_id, name))
        self._events.append(ToolCallArguments(index, arguments))
        self._events.append(ToolCallEnded(index))

    def end(self) -> None:
        """The answer is over; white space at its end is its own where no form explains it."""
        if self._inside:
            if self._thought and self._blanks:
                self._events.append(ReasoningDelta("".join(self._blanks)))
        elif not self._behind_call and (self.said or not self._formed):
            self._release()
        self._blanks = []

    def _words(self, piece: str, *, waits: bool) -> str:
        """``piece`` with what waited before it, without what has to wait now."""
        ends = piece.rstrip(BLANKS)
        words = ends if waits else piece
        if words:
            words = "".join((*self._blanks, words))
            self._blanks = []
        if len(ends) < len(piece) and (waits or not words):
            self._blanks.append(piece[len(ends) :])
        return words

    def _release(self) -> None:
        if self._blanks:
            self._events.append(TextDelta("".join(self._blanks)))
        self._blanks = []
