"""What the gateway must know of a request without reading it: a peek, and two small edits.

``peek`` lets the JSON decoder skip over everything but a few top-level members; ``edit`` splices
``model`` and ``stream_options`` into the client's own bytes. Everything else of the body reaches
the node as the client wrote it.
"""

from __future__ import annotations

import re

import msgspec

from helexa.core.errors import InvalidRequestBody, MissingModelField
from helexa.wire.bodies import UNREADABLE, not_json


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Peek(msgspec.Struct, gc=False):
    """The few members of a request that decide where it goes; made by ``peek`` alone.

    Args:
        prompt: Raw JSON of messages, prompt or input, whichever is there.
        tools: Raw JSON of the tools; empty when there are none.
        hint: Raw JSON of what may name the conversation: ``prompt_cache_key`` or ``metadata``.
    """

    model: str = ""
    stream: bool = False
    prompt: msgspec.Raw = msgspec.field(name="messages", default=msgspec.Raw())
    tools: msgspec.Raw = msgspec.Raw()
    hint: msgspec.Raw = msgspec.field(name="prompt_cache_key", default=msgspec.Raw())
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None

    @property
    def model_for_people(self) -> str:
        """The name that was asked for, as a log may show it: of bounded length, and printable."""
        name = self.model[:128]
        return name if name.isprintable() else ascii(name)

    @property
    def output_cap(self) -> int | None:
        """The request's own limit on output tokens, over all choices."""
        cap = self.max_completion_tokens or self.max_tokens or self.max_output_tokens
        return cap * self.n if cap is not None and self.n is not None and self.n > 1 else cap

    @property
    def usage_wanted(self) -> bool:
        """The client asked for the usage chunk of a stream."""
        options = self.stream_options
        return isinstance(options, _StreamOptions) and bool(options.include_usage)

    @property
    def has_stream_options(self) -> bool:
        """The body has a ``stream_options`` member (possibly null)."""
        return self.stream_options is not msgspec.UNSET


class _Body(Peek, gc=False):
    """As clients write it: null is as good as nothing, and the prompt has three names."""

    model: str | None = None  # type: ignore[assignment]
    stream: bool | None = False  # type: ignore[assignment]
    text: msgspec.Raw = msgspec.field(name="prompt", default=msgspec.Raw())
    input: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Body).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_WHERE = re.compile(r" - at `\$\.?(.*)`$")


def peek(body: bytes) -> Peek:
    """Read what routing needs.

    Raises:
        InvalidJson: Not JSON, not UTF-8, or nested beyond reason.
        InvalidRequestBody: Not an object, or a member of the wrong type (``param`` says which).
        MissingModelField: No ``model``.
    """
    try:
        seen = _decode(body)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from None
    except UNREADABLE as error:
        raise not_json(error, body) from None
    if not seen.model:
        raise MissingModelField(
            "The request names no model; set 'model' to an id of GET /v1/models.", param="model"
        )
    if seen.stream is None:
        seen.stream = False
    if not seen.prompt:
        seen.prompt = seen.text or seen.input
    if seen.metadata and not seen.hint:  # most have neither, and setting is what costs
        seen.hint = seen.metadata
    return seen


def wrong_type(error: msgspec.ValidationError) -> InvalidRequestBody:
    """A decoder's complaint as ours, with the path of the member it is about."""
    text = str(error)
    found = _WHERE.search(text)
    path = found.group(1) if found else ""
    what = text[: found.start()] if found else text
    where = f" at '{path}'" if path else ""
    return InvalidRequestBody(f"{what}{where}.", param=path or None)


def edit(body: bytes, seen: Peek, *, model: str, include_usage: bool) -> bytes:
    """The body with ``model`` and ``stream_options.include_usage`` as given.

    Only those two values change; every other byte stays the client's.

    Args:
        body: A body that ``peek`` accepted as ``seen``.
        model: The concrete id.
        include_usage: Ask for the usage chunk (only sensible for a stream).
    """
    changes: dict[str, bytes] = {}
    added = b""
    if model != seen.model:
        changes["model"] = msgspec.json.encode(model)
    if include_usage and not seen.usage_wanted:
        if seen.has_stream_options:
            changes["stream_options"] = b""  # its other members are kept below
        else:
            added = b'"stream_options":{"include_usage":true},'
    if not changes and not added:
        return body
    try:
        return _splice(body, changes, added)
    except RecursionError as error:  # deeper than ``peek`` by the few frames of whoever called
        raise not_json(error) from None


def _splice(body: bytes, changes: dict[str, bytes], added: bytes) -> bytes:
    """The body with other values for ``changes``, and ``added`` in front of its members."""
    at = body.index(b"{") + 1
    cuts = [(at, at, added)]
    if changes:
        members = _members(body)
        if "stream_options" in changes:
            raw = members.get("stream_options", msgspec.Raw(b"null"))
            options = msgspec.json.decode(raw) or {}
            changes["stream_options"] = msgspec.json.encode({**options, "include_usage": True})
        spans = _spans(body, members)
        if spans is None:  # repeated members: what the decoder kept is what counts
            merged = {**members, **{name: msgspec.Raw(value) for name, value in changes.items()}}
            return b"{" + added + msgspec.json.encode(merged)[1:]
        cuts += sorted((*spans[name], value) for name, value in changes.items())
    # One copy, whatever changes: a body may be many megabytes, and the loop waits for it.
    view, pieces, end = memoryview(body), list[bytes | memoryview](), 0
    for start, after, value in cuts:
        pieces += (view[end:start], value)
        end = after
    return b"".join((*pieces, view[end:]))


_KEY = re.compile(rb'[\s,]*"((?:[^"\\]|\\.)*)"\s*:\s*')


def _spans(body: bytes, members: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]] | None:
    """Where each member's value stands, or None when a member is repeated."""
    at = body.index(b"{") + 1
    spans: dict[str, tuple[int, int]] = {}
    for name, raw in members.items():
        key = _KEY.match(body, at)
        if key is None or msgspec.json.decode(b'"' + key.group(1) + b'"') != name:
            return None
        size = len(memoryview(raw))
        if not body.startswith(raw, key.end()):  # any buffer will do
            return None
        spans[name] = (key.end(), key.end() + size)
        at = key.end() + size
    return spans if body[at:].strip() == b"}" else None
