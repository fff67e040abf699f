"""The Responses dialect as a whole: a request in, what renders its answer out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from helexa.core.errors import HelexaError, UnsupportedParameter
from helexa.core.events import Event, Failed
from helexa.wire.chat_request import encode_chat
from helexa.wire.responses.answer import Asked, Json, asked
from helexa.wire.responses.body import Body
from helexa.wire.responses.decode import read_body, to_request
from helexa.wire.responses.stream import ResponsesStream, plain_response
from helexa.wire.translation import Translation
from helexa.wire.warming import unsaid

_LETTERS = str.maketrans("0123456789", "ghijklmnop")
Keep = Callable[[Json], None]


class Maker(msgspec.Struct, frozen=True):
    """Where the ids and times of a response come from.

    Args:
        ids: Makes an id from its prefix: ``resp_``, ``msg_``, ``rs_``, ``fc_``.
        now: Unix seconds.
    """

    ids: Callable[[str], str]
    now: Callable[[], float]


def translate_responses(
    body: Body,
    maker: Maker,
    *,
    history: Sequence[bytes] = (),
    found: Mapping[str, bytes] | None = None,
    keep: Keep | None = None,
) -> Translation:
    """A Responses request as chat, and what renders the answer.

    Args:
        body: See ``decode.read_body``.
        history: Items of the responses that this one continues, oldest first.
        found: Kept items that the input refers to.
        keep: Is given the response when it has ended well; None keeps nothing.

    Raises:
        HelexaError: What is wrong with it, or cannot be done.
    """
    decoded = to_request(body, history, found)
    echo = asked(body, decoded.names, maker.ids("resp_"), int(maker.now()), stored=keep is not None)
    renderer = ResponsesRenderer(echo, body.model, maker, keep, warms=body.warms)
    return Translation(encode_chat(decoded.request), renderer, decoded.paths, decoded.left_out)


def translate_unkept(raw: bytes, request_id: str, now: Callable[[], float]) -> Translation:
    """The same where nothing is kept: at a node, whose callers send whole conversations.

    Args:
        request_id: Letters; names the response and its items.

    Raises:
        HelexaError: What is wrong with it, or cannot be done.
    """
    body = read_body(raw)
    if body.previous_response_id is not None:
        raise UnsupportedParameter(
            "`previous_response_id` cannot be used: no responses are kept here. Send the whole "
            "conversation as `input`.", param="previous_response_id",
        )  # fmt: skip
    number = itertools.count()

    def ids(prefix: str) -> str:
        count = f"{next(number):x}".translate(_LETTERS)
        return f"{prefix}{request_id}{count}"

    return translate_responses(body, Maker(ids, now))


def token_count(tokens: int) -> bytes:
    """The answer of ``input_tokens``."""
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})


class ResponsesRenderer:
    """Streams, or makes one body; see ``translation.Renderer``.

    Args:
        warms: Nothing of the answer is shown: it was asked for to have its prompt cached.
    """

    __slots__ = ("_asked", "_keep", "_maker", "_model", "_stream", "_warms")

    def __init__(
        self, echo: Asked, model: str, maker: Maker, keep: Keep | None, *, warms: bool = False
    ) -> None:
        self._warms = warms
        self._asked = echo
        self._model = model
        self._maker = maker
        self._keep = keep
        self._stream: ResponsesStream | None = None

    def begin(self, model: str) -> None:
        self._model = model
        self._stream = None

    def render(self, events: Iterable[Event]) -> bytes:
        if self._warms:
            events = unsaid(events, "stop")
        stream = self._open()
        data = stream.render(events)
        if stream.final is not None:
            self._kept(stream.final)
        return data

    def keep_alive(self) -> bytes:
        return self._open().keep_alive()

    def error(self, error: HelexaError, request_id: str) -> bytes:  # noqa: ARG002 - in no event
        return self._open().error(error)

    def plain(self, events: Iterable[Event]) -> bytes | HelexaError:
        listed = unsaid(events, "stop") if self._warms else list(events)
        if listed and isinstance(listed[-1], Failed):
            return listed[-1].error
        maker = self._maker
        final = plain_response(listed, self._asked, self._model, maker.ids, maker.now)
        self._kept(final)
        return msgspec.json.encode(final)

    def _kept(self, final: Json) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep(final)

    def _open(self) -> ResponsesStream:
        if self._stream is None:
            maker = self._maker
            self._stream = ResponsesStream(self._asked, self._model, maker.ids, maker.now)
        return self._stream
