"""Paths of the client API, as clients put them together from a base URL and a route.

Some bring ``/v1`` themselves although the base URL ends in it (Anthropic's), some put a slash
between a base URL that ends in one and a route that begins with one, or one behind the route.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

COHERE_RERANK = b"/v2/rerank"
"""Where Cohere's present client asks; its earlier one asks ``/v1/rerank``, in the same words."""

_PREFIX = re.compile("^/+(?:v1/+)+")


def client_path(path: str) -> str:
    """The path that was meant: ``/v1/v1/messages``, ``//v1//messages`` and ``/v1/messages/`` are
    ``/v1/messages``. Paths without the prefix are not touched."""
    meant = _PREFIX.sub("/v1/", path)
    return meant.rstrip("/") if meant.startswith("/v1/") else meant


def meant_path(raw: bytes) -> bytes:
    """The same of a path as it was sent, its percent-escapes resolved (RFC 3986, 6.2.2.2)."""
    return client_path(unquote_to_bytes(raw).decode("latin-1")).encode("latin-1")
