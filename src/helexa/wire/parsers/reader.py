"""One answer's text, read as thoughts, text and calls.

::

    text ──<think>──▶ thought ──</think>──▶ text
    text ──<tool_call>──▶ block ──</tool_call>, readable──▶ calls, text
                            └── unreadable, or cut off ──▶ its marker is text; read on behind it

A call leaves when it is whole, because what turns out to be none has to stay visible. A thought
that is cut off stays a thought. Nothing else is held back longer than it may be a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from helexa.wire.parsers.blocks import Call
from helexa.wire.parsers.coerce import Schema
from helexa.wire.parsers.forms import End, Extent, Form
from helexa.wire.parsers.markers import Markers
from helexa.wire.parsers.outlet import BLANKS, Outlet, ReaderEvent
from helexa.wire.parsers.repair import Unreadable

MOST_UNREADABLE = 16
"""Blocks without a call, after which none is looked for: a model that repeats a marker without end
must not make every repetition a reading of all that follows."""
_Step = Callable[[bool], bool]
"""Does one thing with the held text; False when more of it has to come. Its argument: none will."""


class AnswerReader:
    """Reads one choice.

    Args:
        forms: How calls may be written; none where the request has no tools.
        think: Opening and closing marker of thoughts; None where the model has none.
        thinking: The prompt has opened a thought already.
        tools: The request's tools with the schemas of their parameters.
        call_id: Names the n-th call.
    """

    __slots__ = ("_bare", "_call_id", "_close", "_extent", "_form", "_forms", "_held", "_open",
                 "_out", "_step", "_think", "_told", "_tools", "_unreadable")  # fmt: skip

    def __init__(
        self,
        forms: Sequence[Form] = (),
        think: tuple[str, str] | None = None,
        *,
        thinking: bool = False,
        tools: Mapping[str, Schema | None] | None = None,
        call_id: Callable[[int], str] = "call_{}".format,
    ) -> None:
        self._forms = {form.opens: form for form in forms if form.opens}
        self._bare = next((form for form in forms if not form.opens), None)
        self._think: tuple[str, ...] = think or ()
        self._open = Markers((*self._forms, *self._think[:1]))
        self._close = Markers(self._think[1:])
        self._tools = tools or {}
        self._call_id = call_id
        self._out = Outlet(trims=bool(forms))
        self._held = ""
        self._told = False  # by the engine what is a thought
        self._unreadable = 0
        self._form: Form | None = None
        self._extent: Extent | None = None
        self._step: _Step = self._start
        if think and thinking:
            self._out.begin_thought()
            self._step = self._reopened

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._out.calls > 0

    def feed(self, text: str) -> list[ReaderEvent]:
        """The events of a delta."""
        if self._told:
            self._out.end_thought()
        self._held += text
        while self._step(False):
            pass
        return self._out.take()

    def end(self) -> list[ReaderEvent]:
        """The last events: what was held back and can become nothing else now."""
        while self._step(True):
            pass
        self._out.end()
        return self._out.take()

    def feed_thought(self, text: str) -> list[ReaderEvent]:
        """The events of a delta that the engine itself calls a thought; from now on what comes as
        text is text."""
        if not self._told:
            self._told = True
            self._open = Markers(self._forms)
            if self._step in (self._reopened, self._thought):
                self._step = self._start
        self._out.begin_thought()
        self._out.thought(text)
        return self._out.take()

    def _start(self, final: bool) -> bool:
        """Before the first word: a call without a marker may come."""
        if self._bare is None or self._out.said:
            self._step = self._text
            return True
        begun = self._held.lstrip(BLANKS)
        self._out.text(self._held[: len(self._held) - len(begun)])
        self._held = begun
        if not begun and not final:
            return False
        if begun.startswith("{"):
            self._enter(self._bare)
        else:
            self._step = self._text
        return True

    def _text(self, final: bool) -> bool:
        found = self._open.find(self._held)
        if found is None:
            keep = 0 if final else self._open.overlap(self._held)
            self._out.text(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        at, marker = found
        self._out.text(self._held[:at])
        self._held = self._held[at + len(marker) :]
        form = self._forms.get(marker)
        if form is not None:
            self._enter(form)
        else:
            self._out.begin_thought()
            self._step = self._thought
        return True

    def _reopened(self, final: bool) -> bool:
        """At the start of a thought that the prompt opened: some models open it once more."""
        begun, marker = self._held.lstrip(BLANKS), self._think[0]
        self._out.thought(self._held[: len(self._held) - len(begun)])
        self._held = begun
        if marker.startswith(begun) and begun != marker and not final:
            return False
        if begun.startswith(marker):
            self._held = begun[len(marker) :]
        self._step = self._thought
        return True

    def _thought(self, final: bool) -> bool:
        found = self._close.find(self._held)
        if found is None:
            keep = 0 if final else self._close.overlap(self._held)
            self._out.thought(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        at, marker = found
        self._out.thought(self._held[:at])
        self._out.end_thought()
        self._held = self._held[at + len(marker) :]
        self._step = self._start
        return True

    def _enter(self, form: Form) -> None:
        self._form, self._extent = form, form.extent()
        self._step = self._block

    def _block(self, final: bool) -> bool:
        form, extent = self._form, self._extent
        if form is None or extent is None:  # not reached: ``_enter`` sets both
            raise AssertionError
        end = extent.find(self._held)
        if end is True:
            if not final:
                return False
            end = End(len(self._held), len(self._held))
        calls = self._read(form, end) if isinstance(end, End) else []
        for call in calls:
            self._out.call(self._call_id(self._out.calls), call.name, call.arguments)
        if calls and isinstance(end, End):
            self._held = self._held[end.rest :]
            self._step = self._behind_call
        else:
            self._out.text(form.opens)
            self._step = self._text
            self._unreadable += 1
            if self._unreadable == MOST_UNREADABLE:
                self._open = Markers(() if self._told else self._think[:1])
        return True

    def _read(self, form: Form, end: End) -> list[Call]:
        body = self._held[: end.body]
        try:
            return form.read(form.opens + body if form.kept else body, self._tools)
        except (Unreadable, RecursionError):  # or nested beyond all reason
            return []

    def _behind_call(self, final: bool) -> bool:
        """Some models close a tag that they never opened."""
        tail = self._form.tail if self._form is not None else ""
        begun = self._held.lstrip(BLANKS)
        self._out.text(self._held[: len(self._held) - len(begun)])
        self._held = begun
        if tail and begun != tail and tail.startswith(begun) and not final:
            return False
        if tail and begun.startswith(tail):
            self._held = begun[len(tail) :]
        self._step = self._start
        return True
