"""Files that come inside a request: what is text is shown as its text, as a document is.

Clients send them as base64, bare or in a ``data:`` URL, and name media types as they please
(``application/json``, ``text/x-python``, none), so what it is is read from the bytes. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter

_HEAD = re.compile(r"data:[^,]*,")
_BINARY = (b"%PDF-", b"{\\rtf")
"""Formats whose bytes may all be ASCII, and say nothing to a model."""


def file_text(data: str | None, name: str | None, path: str) -> str:
    """What a model is shown of a file: its text, under its name.

    Args:
        data: ``file_data`` of the part.
        name: Its ``filename``.
        path: Of the part, for refusals.

    Raises:
        UnsupportedParameter: It is not here (an id, an address), or it is no text.
        InvalidRequestBody: It is no base64.
    """
    if data is None:
        raise UnsupportedParameter(
            f"`{path}` is a file without `file_data`; files are neither kept nor fetched here. "
            "Send it itself.", param=path,
        )  # fmt: skip
    head = _HEAD.match(data)
    try:
        raw = base64.b64decode(data[head.end() :] if head else data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestBody(
            f"`{path}` has no valid base64 as `file_data`.", param=path
        ) from None
    text = _text(raw)
    if text is None:
        raise UnsupportedParameter(
            f"`{path}` is a file that is not text, which cannot be read here. Send its contents as "
            "text.", param=path,
        )  # fmt: skip
    return f"{name}\n{text}" if name else text


def _text(raw: bytes) -> str | None:
    if raw.startswith(_BINARY) or b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
