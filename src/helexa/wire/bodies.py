"""Request bodies of our own routes, decoded into what they must be."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from helexa.core.errors import InvalidJson, InvalidRequestBody

T = TypeVar("T")


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
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}") from error
