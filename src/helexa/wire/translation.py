"""A request of another dialect on its way through chat: what goes in, what renders what comes out.

::

    client's body ─decode─▶ ChatRequest ─encode_chat─▶ node
    client ◀─renderer─ events ◀─ChatEvents─ clean chat ◀─ node

N decoders and N renderers around one chat, never N × N. One ``Translation`` lives as long as its
request; it knows no sockets and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from helexa.core.errors import HelexaError
from helexa.core.events import Event, Failed
from helexa.wire.chat_events import ChatEvents, plain_events

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_LEFT_OUT = 16  # that are named in a header


class Renderer(Protocol):
    """One answer in a client's dialect."""

    def begin(self, model: str) -> None:
        """The concrete model, known before anything is rendered."""

    def render(self, events: Iterable[Event]) -> bytes:
        """Events as whole stream events of the dialect; possibly none."""

    def keep_alive(self) -> bytes:
        """One keep-alive; the first one opens the answer, if nothing has."""

    def error(self, error: HelexaError, request_id: str) -> bytes:
        """A failure as the last event of a stream that is under way."""

    def plain(self, events: Iterable[Event]) -> bytes | HelexaError:
        """A whole answer, or why there is none."""


class Translation:
    """Renders the chat answer of one request in the dialect of its client.

    Args:
        body: The chat request that goes to a node.
        renderer: Of the client's dialect.
        names: The client's paths by those of ``body``, where they differ.
        left_out: Types of the request's tools that nobody here can run, as the client wrote them.

    Attributes:
        lines: Header lines that every answer to it carries, complete.
    """

    __slots__ = ("_decoder", "_names", "_renderer", "body", "lines")

    def __init__(
        self,
        body: bytes,
        renderer: Renderer,
        names: Mapping[str, str] | None = None,
        left_out: Iterable[str] = (),
    ) -> None:
        self.body = body
        self.lines = _left_out_line(left_out)
        self._renderer = renderer
        self._names = names or {}
        self._decoder = ChatEvents()

    def begin(self, model: str) -> None:
        """The name in the request has become a concrete model."""
        self._renderer.begin(model)

    def renew(self) -> None:
        """Another node's answer comes instead; nothing of the last one was passed on."""
        self._decoder = ChatEvents()

    def events(self, data: bytes) -> bytes:
        """Whole chat events as the dialect's; may be empty.

        Raises:
            HelexaError: The node has sent an error, or garbage.
        """
        return self._rendered(self._decoder.feed(data))

    def keep_alive(self) -> bytes:
        """One keep-alive in the dialect's form."""
        return self._renderer.keep_alive()

    def finish(self, comment: bytes) -> bytes:
        """The end of a complete stream: ``comment``, what is left to say, the terminator.

        Raises:
            HelexaError: The stream was not complete.
        """
        return comment + self._rendered(self._decoder.finish())

    def fail(self, error: HelexaError, request_id: str) -> bytes:
        """The failure of a stream whose 200 is out; no success terminator follows.

        Args:
            request_id: As the client knows it.
        """
        return self._renderer.error(error, request_id)

    def restated(self, error: HelexaError) -> HelexaError:
        """A refusal of the chat request, about the member that the client wrote."""
        return restated(error, self._names)

    def plain(self, body: bytes) -> bytes:
        """A whole chat answer as the dialect's.

        Raises:
            HelexaError: It is none.
        """
        found = self._renderer.plain(plain_events(body))
        if isinstance(found, HelexaError):
            raise found
        return found

    def counted(self) -> Translation:
        """The same request, if only its prompt is to be counted."""
        return CountedTranslation(self.body, self._renderer, self._names)

    def _rendered(self, events: list[Event]) -> bytes:
        if events and isinstance(events[-1], Failed):
            raise events[-1].error
        return self._renderer.render(events)


class CountedTranslation(Translation):
    """A request whose prompt is only counted: what the node answers is what the client gets."""

    __slots__ = ()

    def plain(self, body: bytes) -> bytes:
        return body


def _left_out_line(kinds: Iterable[str]) -> bytes:
    """Only what may stand in a header: the words are the client's."""
    words = [kind for kind in dict.fromkeys(kinds) if _WORD.fullmatch(kind)][:_MOST_LEFT_OUT]
    return f"x-helexa-left-out: {', '.join(words)}\r\n".encode() if words else b""


def restated(error: HelexaError, names: Mapping[str, str]) -> HelexaError:
    """The same refusal, about the member that the client wrote.

    Args:
        names: The client's paths by those that refusals name, where they differ.
    """
    param = error.param
    if param is None:
        return error
    for known in sorted(names, key=len, reverse=True):
        if param == known or param.startswith((f"{known}.", f"{known}[")):
            return _about(error, param, names[known] + param[len(known) :])
    return error


def _about(error: HelexaError, param: str, meant: str) -> HelexaError:
    """The same error about another path; classes differ in what their constructors want."""
    other = type(error).__new__(type(error))
    HelexaError.__init__(
        other,
        error.message.replace(param, meant),
        param=meant,
        retry_after_s=error.retry_after_s,
        **error.extras,
    )
    return other
