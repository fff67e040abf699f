"""Request bodies, decoded into what they must be; and what is said of those that are no JSON."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from helexa.core.errors import InvalidJson, InvalidRequestBody

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises: for malformed JSON, for text that is not UTF-8, and for members that
are nested deeper than it goes (some hundred levels)."""


_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
"""By the two bytes that such a body begins with."""


def not_json(error: Exception, body: bytes = b"") -> InvalidJson:
    """One of ``UNREADABLE`` as the refusal of ``body``, which it was raised for."""
    form = _COMPRESSED.get(body[:2])
    if form is not None:
        return InvalidJson(f"The body is compressed ({form}); send it plain.")
    if isinstance(error, RecursionError):
        return InvalidJson("The body is nested too deeply; keep it below some hundred levels.")
    return InvalidJson(f"The body is not valid JSON: {error}.")


def decode_as(body: bytes, kind: type[T]) -> T:
    """``body`` as a ``kind``; an empty one is an empty object.

    Raises:
        InvalidJson: It is not JSON.
        InvalidRequestBody: It is not a ``kind``; ``param`` is the path.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        where = path.rstrip("`").removeprefix("$").removeprefix(".")
        raise InvalidRequestBody(f"{text}.", param=where or None) from error
    except UNREADABLE as error:
        raise not_json(error, body) from error
