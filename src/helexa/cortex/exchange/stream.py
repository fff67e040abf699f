"""A streamed answer on its way through the gateway: metered, watched, passed on.

Chat bytes become client bytes in ``events``, through the route's ``Translation`` if it has one.
What is in the middle of a plain chat stream and comes in whole chunks does not even get there:
``forward`` writes it as it came. What comes with the end leaves with our terminator.
"""

from __future__ import annotations

from collections.abc import Callable

from helexa.core.errors import HelexaError
from helexa.core.metrics import GAP_BUCKETS
from helexa.cortex.exchange.desk import Watcher
from helexa.relay.answer import Answer
from helexa.relay.plainly import CHUNK_BODIES, CHUNK_HEADS, whole_chunks
from helexa.wire import errors as wire
from helexa.wire.chat_tail import DONE, MIDDLE, MOST_STAMPS, ChatTail
from helexa.wire.translation import Translation

_MIDDLE_CHUNK = MIDDLE + b"\r\n"
_SMALL = len(CHUNK_HEADS)


class StreamRelay:
    """Joins one client's answer with whichever node's stream comes to be relayed.

    Args:
        show_usage: The client asked for the usage chunk.
        now: Loop time.
        header_lines: Called once, when the first events of an engine arrive.
        translation: Renders what passes in another dialect; None relays chat as it is.
    """

    __slots__ = (
        "_header_lines",
        "_last",
        "_now",
        "_reply",
        "_show_usage",
        "_translation",
        "_watcher",
        "answer",
        "tail",
    )

    def __init__(
        self,
        answer: Answer,
        *,
        show_usage: bool,
        watcher: Watcher | None,
        now: Callable[[], float],
        header_lines: Callable[[], bytes],
        translation: Translation | None = None,
    ) -> None:
        self.answer = answer
        self._reply = answer.reply
        self._show_usage = show_usage or translation is not None
        self._translation = translation
        self.tail = ChatTail(GAP_BUCKETS, show_usage=self._show_usage)
        self._watcher = watcher
        self._now = now
        self._header_lines = header_lines
        self._last = b""

    def renew(self) -> None:
        """Another candidate is tried: forget what the last one said (nothing was relayed)."""
        self.tail = ChatTail(GAP_BUCKETS, show_usage=self._show_usage)
        if self._translation is not None:
            self._translation.renew()

    def events(self, data: bytes) -> None:
        """Whole events from the node."""
        answer, now = self.answer, self._now()
        data = self.tail.feed(data, now)
        if self._translation is not None:
            data = self._translation.events(data)
        if not data:
            return
        if self._watcher is not None:
            self._watcher.response(data)
        if self.tail.done and answer.relaying:
            self._last += data  # leaves with the terminator: one packet, and one wake-up, less
        elif answer.relaying:
            # As ``answer.write`` does, without its call: the path of every token.
            answer.last = now
            answer.reply.write(data)
        else:
            answer.add_headers(self._header_lines())
            answer.write(data)

    @property
    def forwards(self) -> bool:
        """Whether chunks may go by as they come: nobody watches or translates."""
        return self._watcher is None and self._translation is None

    def forward(self, data: bytes) -> float:
        """Write chunks as they came if there is nothing in them for us; when, or 0 if not.

        The path of every token: what is called here is called a hundred times a request.
        """
        reply, tail, size = self._reply, self.tail, len(data)
        if not reply.passes or not tail.first_at or not data.endswith(_MIDDLE_CHUNK):
            return 0.0
        # ``whole_chunks`` for one chunk, which it nearly always is.
        if size < _SMALL and data.startswith(CHUNK_HEADS[size]):
            reply.bytes_sent += CHUNK_BODIES[size]
        else:
            size = whole_chunks(data)
            if not size:
                return 0.0
            reply.bytes_sent += size
        # Python looks a slot up anew when it is called like a method; not when it is read first.
        write, clock, stamps = reply.transmit, self._now, tail.stamps
        write(data)
        self.answer.last = now = clock()
        stamps.append(now)
        if len(stamps) >= MOST_STAMPS:
            tail.measure()
        return now

    def finish(self, comment: bytes) -> None:
        """The success terminator, behind what only the end could tell."""
        if self._translation is None:
            self.end(comment + DONE)
        else:
            self.end(self._translation.finish(comment))

    def fail(self, error: HelexaError, dialect: wire.Dialect, request_id: str) -> None:
        """The failure as the last event, in the client's dialect."""
        if self._translation is None:
            self.end(wire.event(error, dialect, request_id))
        else:
            self.end(self._translation.fail(error, request_id))

    def end(self, last: bytes) -> None:
        """The last bytes, whatever they say."""
        if self._watcher is not None:
            self._watcher.response(last)
        self.answer.end(self._last + last)
