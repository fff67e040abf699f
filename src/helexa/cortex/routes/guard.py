"""Who may administer: a key with ``admin``; while there is none, whoever sits at the machine.

At the machine means: a connection from loopback that no proxy has forwarded, to a loopback name,
and not from a web page of another origin. Without the last two, any page that the operator's
browser shows could administer the gateway.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from helexa.core.errors import Forbidden
from helexa.cortex.auth import KeyTable

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def require_admin(request: Request, keys: KeyTable) -> None:
    """Return if the caller may administer.

    Raises:
        InvalidApiKey: A key is required, and none or an unknown one was given.
        Forbidden: Not an administrator.
    """
    if not keys.has_admin:
        if is_local(request):
            return
        raise Forbidden(
            "No key may administer this gateway yet, so only its own machine may. "
            "Set admin = true for a key in cortex.toml."
        )
    authorization = request.headers.get("authorization")
    x_api_key = request.headers.get("x-api-key")
    principal = keys.resolve(
        None if authorization is None else authorization.encode("latin-1"),
        None if x_api_key is None else x_api_key.encode("latin-1"),
    )
    if not principal.admin:
        raise Forbidden("This key may not administer; it needs admin = true in cortex.toml.")


def is_local(request: Request) -> bool:
    """Whether the caller sits at this machine and speaks for itself."""
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in request.headers for name in _FORWARDED):
        return False
    host = request.headers.get("host", "")
    if not _is_loopback(_hostname(host)):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == host


def _hostname(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
