"""One answer on its way from the engine to its reader: whole events, counted, held by its grant.

::

    engine bytes ─▶ whole events ─▶ cleaner + meter ─▶ grant, KV cells ─▶ clean events
                                                          │
                                              edge: held until the grant grows, or cut

Pure: it never waits and knows no sockets. Far from every edge a batch of events is cleaned in
one piece; near one they are taken singly, so that a cut falls between two tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from helexa.neuron.engines.base import Cleaner, Meter, Splice
from helexa.neuron.grants import GrantGate

Edge = Literal["grant", "kv_exhausted"]

MARGIN = 64
"""Tokens from an edge at which events are taken singly; an engine may put several in one event."""

END = b"\n\n"
_OTHER_END = b"\r\n\r\n"
"""Some servers end their lines as HTTP does (the standard of server-sent events allows it)."""
_PREDICTED = b'"predicted_n":'
# Some engines write blanks between the parts of their JSON.
_DELTA, _NOTHING = re.compile(rb'"delta"\s*:\s*\{'), re.compile(rb'"delta"\s*:\s*\{\s*\}')
_TEXT, _NO_TEXT = re.compile(rb'"text"\s*:\s*"'), re.compile(rb'"text"\s*:\s*""')
_IDS = re.compile(rb'"token_ids"\s*:\s*\[')
_UNFINISHED = re.compile(rb'"finish_reason"\s*:\s*null')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_INDEX, _FIRST = b'"index":', b'"index":0,'


class Cells(Protocol):
    """KV cells granted to one request."""

    @property
    def cells(self) -> int:
        """Cells it holds."""

    def extend_cells(self, tokens: int) -> bool:
        """Take ``tokens`` more; False when they are not to be had."""


class Step(msgspec.Struct, frozen=True):
    """What one push came to.

    Args:
        out: Clean events to forward.
        edge: The answer cannot go on: out of grant (a raise may help) or out of cells (nothing
            will).
        began: The engine has accepted the prompt.
        done: The answer is complete.
    """

    out: bytes = b""
    edge: Edge | None = None
    began: bool = False
    done: bool = False


class Billed(msgspec.Struct, frozen=True):
    """What the request has cost so far (tokens)."""

    prompt: int
    cached: int
    output: int
    reasoning: int
    discarded: int


@dataclass(slots=True)
class AnswerStream:
    """Drives one cleaner.

    Args:
        kv_slice: Cells taken at a time while the answer grows.
        discarded: Tokens the engine computed and nobody got.
        splicer: The cleaner's short way.
    """

    cleaner: Cleaner
    gate: GrantGate
    cells: Cells
    kv_slice: int = 256
    discarded: int = 0
    splicer: Splice | None = None
    meter: Meter = field(init=False)
    _tail: bytes = b""  # the beginning of an event
    _held: bytes = b""  # whole events behind an edge, not cleaned yet
    _unsent: bytes = b""  # cleaned, but over the grant
    _taken: int = 0  # from the grant so far
    _clear: int = 0  # tokens that fit grant and cells without asking again
    _ahead: int = 0  # events in ``_held``: the engine has cells for their tokens already

    def __post_init__(self) -> None:
        self.meter = self.cleaner.meter

    @property
    def accepted(self) -> bool:
        """The engine has accepted the prompt."""
        return self.meter.prompt_known

    @property
    def blocked(self) -> bool:
        """Events wait for the grant to grow."""
        return bool(self._held or self._unsent)

    @property
    def ahead(self) -> int:
        """Events that wait behind an edge: how far the engine has computed on."""
        return self._ahead

    @property
    def missing(self) -> int:
        """Tokens the grant must have room for before a blocked answer can go on."""
        return max(1, self._owed())

    def push(self, data: bytes) -> Step:
        """Take bytes from the engine, split anywhere."""
        data = self._tail + data if self._tail else data
        end = data.rfind(END) + len(END)
        if end < len(END):
            events, self._tail = with_other_ends(data)
            if not events:
                return self._step(b"", None)
        else:
            self._tail = data[end:]
            events = data[:end] if self._tail else data
        if self._held or self._unsent:
            self._held += events
            self._ahead += events.count(END)
            edge: Edge = "grant" if self._cells_for(self._ahead) else "kv_exhausted"
            return self._step(b"", edge)
        tokens = MARGIN + events_in(events)
        return self._flow(events) if self._clear >= tokens else self._advance(events, tokens)

    def splice(self, chunk: bytes) -> bytes:
        """Far from every edge: the clean event of an HTTP chunk as it came, counted.

        Returns nothing for what is not that simple; ``push`` then takes it.
        """
        meter, clear, splicer = self.meter, self._clear, self.splicer
        if not clear or self._tail or splicer is None:
            return b""
        before = meter.output
        out = splicer(chunk, clear)
        if out:
            fresh = meter.output - before
            self._clear = clear - fresh
            self._taken += fresh
            self.gate.used += fresh
        return out

    def edges_moved(self) -> None:
        """Cells were given back: what was clear may not be any more."""
        self._clear = 0

    def look_ahead(self) -> None:
        """See how far everything is clear before the first token has come."""
        self._clear = self._measured()

    def resume(self) -> Step:
        """Go on with what was held, after the grant grew."""
        unsent, self._unsent = self._unsent, b""
        held, self._held = self._held, b""
        ahead, self._ahead = self._ahead, 0
        if not self._account():
            self._unsent, self._held, self._ahead = unsent, held, ahead
            return self._step(b"", "grant")
        step = self._advance(held, MARGIN + events_in(held))
        return msgspec.structs.replace(step, out=unsent + step.out) if unsent else step

    def cut(self, finish: str, why: str) -> bytes:
        """End the answer here; returns its closing events.

        What the engine computed beyond this point is counted as thrown away. An answer whose end
        is here, and only its count does not fit, goes out whole: what is over is ours to bear.
        """
        ended = self._unsent if self.cleaner.done else b""
        self.abandon()
        return ended or self.cleaner.close(finish, why)

    def abandon(self) -> None:
        """Nobody reads on: what is held counts as thrown away."""
        meter = self.meter
        if self._held:
            self.discarded += tokens_in(self._held, meter.output)
        self._held = self._unsent = b""
        self._ahead = 0
        if self._taken < meter.prompt + meter.output:
            self._forgive()

    def settle_whole(self) -> None:
        """An answer that came in one piece (embeddings, scores) has been fed to the cleaner."""
        self._account()

    def billed(self) -> Billed:
        """The request's cost as it stands; never more than the grant."""
        prompt, cached, output, reasoning, discarded = self.counts()
        return Billed(prompt, min(cached, prompt), output, reasoning, discarded)

    def counts(self) -> tuple[int, int, int, int, int]:
        """The members of ``billed``; as a tuple, since it is asked for at every event."""
        meter = self.cleaner.meter
        if self._taken >= meter.prompt + meter.output:
            return meter.prompt, meter.cached, meter.output, meter.reasoning, self.discarded
        owed = self._owed()
        output = max(0, meter.output - owed)
        prompt = self._prompt() - max(0, owed - meter.output)
        return prompt, meter.cached, output, min(meter.reasoning, output), self.discarded

    def _flow(self, events: bytes) -> Step:
        """Far from every edge, with the prompt paid for: the usual case, made short."""
        cleaner = self.cleaner
        out = cleaner.feed(events)
        meter = cleaner.meter
        fresh = meter.prompt + meter.output - self._taken
        if not 0 <= fresh <= self._clear:  # more tokens than events, by far
            return self._accounted(out)
        self._clear -= fresh
        self._taken += fresh
        self.gate.used += fresh
        return Step(out, None, True, cleaner.done or cleaner.failed is not None)

    def _advance(self, events: bytes, tokens: int) -> Step:
        """Take events that may cost so many tokens."""
        self._clear = 0  # whatever is taken from here on is not subtracted from it
        if self.gate.fits(tokens) and self._cells_for(tokens):
            return self._accounted(self.cleaner.feed(events))
        return self._singly(events)

    def _accounted(self, out: bytes) -> Step:
        self._clear = 0
        if not self._account():
            self._unsent = out
            return self._step(b"", "grant")
        if self.meter.output:
            self._clear = self._measured()
        return self._step(out, None)

    def _measured(self) -> int:
        """Tokens that need no thought: all before them are paid for, the whole prompt among them,
        they fit the cells that are held now, and the grant is calm about them."""
        meter = self.meter
        if not meter.prompt_known or self._taken != meter.prompt + meter.output:
            return 0
        left = self.gate.calm
        held = self.cells.cells - max(meter.prompt, meter.prompt_processed) - meter.output
        return max(0, held if left is None else min(left, held))

    def _singly(self, events: bytes) -> Step:
        clean: list[bytes] = []
        while events:
            end = events.find(END) + len(END)
            event = events[:end]
            edge = self._edge_before(event)
            if edge is not None:
                self._held = events
                self._ahead = events.count(END)
                return self._step(b"".join(clean), edge)
            events = events[end:]
            out = self.cleaner.feed(event)
            if not self._account():
                if may_cost(event):
                    self._unsent, self._held = out, events
                    self._ahead = events.count(END)
                    return self._step(b"".join(clean), "grant")
                self._forgive()
            clean.append(out)
        return self._step(b"".join(clean), None)

    def _edge_before(self, event: bytes) -> Edge | None:
        """Whether an event that carries tokens would not fit any more."""
        if not may_cost(event):
            return None
        if not self.gate.fits(1):
            return "grant"
        return None if self._cells_for(1) else "kv_exhausted"

    def _cells_for(self, tokens: int) -> bool:
        meter = self.cleaner.meter
        needed = max(meter.prompt, meter.prompt_processed) + meter.output + tokens
        short = needed - self.cells.cells
        if short <= 0:
            return True
        return self.cells.extend_cells(max(self.kv_slice, short)) or self.cells.extend_cells(short)

    def _account(self) -> bool:
        """Take from the grant what the meter now shows; False when it does not fit whole."""
        owed = self._owed()
        allowed = self.gate.take(owed)
        self._taken += allowed
        return allowed >= owed

    def _forgive(self) -> None:
        """An end-of-answer token that no longer fits: nobody sees it, nobody pays for it."""
        over = min(self._owed(), self.cleaner.meter.output)
        self.cleaner.meter.output -= over
        self.discarded += over

    def _owed(self) -> int:
        """Tokens the meter shows that the grant has not paid for."""
        cleaner = self.cleaner
        meter = cleaner.meter
        whole = meter.output or cleaner.done  # as of ``_prompt``
        owed = (meter.prompt if whole else meter.prompt_processed) + meter.output - self._taken
        return max(0, owed)

    def _prompt(self) -> int:
        """Prompt tokens to bill: what has been processed, all of it once there is output."""
        meter = self.cleaner.meter
        return meter.prompt if meter.output or self.cleaner.done else meter.prompt_processed

    def _step(self, out: bytes, edge: Edge | None) -> Step:
        cleaner = self.cleaner
        ended = cleaner.done or cleaner.failed is not None
        if ended and self.blocked:
            ended = False
        return Step(out, edge, cleaner.meter.prompt_known, ended)


def with_other_ends(data: bytes) -> tuple[bytes, bytes]:
    """The whole events of a stream whose lines end as HTTP's do, with the usual ends; and the
    beginning of the next one, untouched, since its last line end may have come by half."""
    end = data.rfind(_OTHER_END) + len(_OTHER_END)
    if end < len(_OTHER_END):
        return b"", data
    return data[:end].replace(b"\r\n", b"\n"), data[end:]


def events_in(events: bytes) -> int:
    """How many whole events; almost always one, and one newline is found fast."""
    return 1 if events.find(b"\n") == len(events) - len(END) else events.count(END)


def without_usage(events: bytes) -> bytes:
    """The last events of a stream for a caller who did not ask for the usage chunk."""
    kept = [e for e in events.split(b"\n\n") if e and b'"choices":[],"usage"' not in e]
    return b"".join(event + b"\n\n" for event in kept)


def may_cost(event: bytes) -> bool:
    """Whether an event of an OpenAI-style stream can carry a token.

    Progress, usage, ``[DONE]`` and a closing chunk without text do not; an empty chunk in the
    middle does where the engine says which tokens it holds back.
    """
    if _DELTA.search(event):
        held = _IDS.search(event) and _UNFINISHED.search(event)
        return bool(held) or not _NOTHING.search(event)
    return bool(_TEXT.search(event)) and not (_NO_TEXT.search(event) and _FINISHED.search(event))


def tokens_in(events: bytes, before: int) -> int:
    """Tokens of events that nobody will get: what the engine's own count says, or one each.

    One token may come in several events, and several in one. The engine counts per choice, so
    with several choices its word is only the least.

    Args:
        before: Tokens taken before these events.
    """
    counted = sum(map(may_cost, events.split(END)))
    last = events.rfind(_PREDICTED)
    if last < 0:
        return counted
    digits = events[last + len(_PREDICTED) : last + len(_PREDICTED) + 12].split(b",")[0]
    if not digits.isdigit():
        return counted
    said = max(0, int(digits) - before)
    return said if events.count(_INDEX) == events.count(_FIRST) else max(counted, said)
