"""The edge of the node: which requests are inference, and who may ask for anything.

Inference goes straight from the server protocol into an ``Exchange``; everything else to the
management app. The fleet secret is checked here, once, for both.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache

from helexa.core.errors import Forbidden, HelexaError, InvalidApiKey
from helexa.core.settings import Secret
from helexa.neuron.exchange.caller import read_caller
from helexa.neuron.exchange.counting import Counting
from helexa.neuron.exchange.desk import Desk
from helexa.neuron.exchange.exchange import Exchange
from helexa.neuron.exchange.way import WAYS, Way
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import BadRequest
from helexa.relay.reply import Reply
from helexa.relay.request import Head, Request
from helexa.wire import errors as wire
from helexa.wire.paths import COHERE_RERANK, meant_path

PUBLIC = frozenset((b"/health", b"/version"))

_NO_PAGES = (
    "A node without a fleet secret answers no web page, and to no name but its machine's own: "
    "ask the gateway, or the node at 127.0.0.1, or give both a fleet secret."
)
_STRANGER = "The fleet secret is missing or wrong."


class NodeApp:
    """What the node's listener serves.

    Args:
        desk: For inference.
        management: For everything else.
        secret: The fleet secret; None when only this machine can reach the node.
        others: Taken for it too.
    """

    def __init__(
        self,
        desk: Desk,
        management: AsgiBridge,
        secret: Secret | None,
        others: Sequence[Secret] = (),
    ) -> None:
        self._desk = desk
        self._management = management
        self._expected = _bearer(secret) if secret else None
        self._others = [_bearer(other) for other in others]
        self._ways = WAYS | {b"/v1" + path: way for path, way in WAYS.items()}
        self._ways[COHERE_RERANK] = WAYS[b"/rerank"]

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        head = request.head
        path = head.path
        way = self._ways.get(path)
        if way is None and (b"%" in path or path.startswith((b"/v1/", b"//"))):
            path = meant_path(path)
            way = self._ways.get(path)
        dialect: wire.Dialect = "openai" if way is None else way.dialect
        if self._expected is not None and not self._allowed(request):
            self._refuse(reply, InvalidApiKey(_STRANGER), dialect)
        elif self._expected is None and _of_a_page(request):
            self._refuse(reply, Forbidden(_NO_PAGES), dialect)
        elif way is None:
            self._management.handle(request, reply)
        elif head.method != b"POST":
            method = request.method.decode("latin-1")
            words = f"Use POST on {request.path.decode('latin-1')}, not {method}."
            rendered = wire.route_error(405, "method_not_allowed", words, dialect)
            reply.send(405, b"allow: POST\r\n" + rendered.lines, rendered.body)
        else:
            self._infer(way, request, reply)

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        """A request that could not be parsed."""
        dialect = wire.dialect_of(error.url, error.headers)
        rendered = wire.route_error(error.status, error.code, error.message, dialect)
        return rendered.lines, rendered.body

    def foresee(self, head: Head) -> BadRequest | None:
        """No stranger's long body is read: bodies are held whole."""
        if self._expected is None or self._knows(head.headers.get(b"authorization", b"")):
            return None
        return BadRequest(401, InvalidApiKey.code, _STRANGER)

    def may_multiplex(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether somebody may bring many connections over one: only who may ask something."""
        return self._expected is None or self._knows(headers.get(b"authorization", b""))

    def _infer(self, way: Way, request: Request, reply: Reply) -> None:
        try:
            caller = read_caller(request, self._desk.ids)
        except HelexaError as error:
            self._refuse(reply, error, way.dialect)
            return
        if way.counts:
            Counting(self._desk, way, request.body, reply, caller).start()
        else:
            Exchange(self._desk, way, request, reply, caller).start()

    def _allowed(self, request: Request) -> bool:
        if request.method == b"GET" and request.path in PUBLIC:
            return True
        return self._knows(request.header(b"authorization"))

    def _knows(self, authorization: bytes) -> bool:
        expected = self._expected
        if expected is not None and hmac.compare_digest(authorization, expected):
            return True
        return any(hmac.compare_digest(authorization, other) for other in self._others)

    def _refuse(self, reply: Reply, error: HelexaError, dialect: wire.Dialect) -> None:
        rendered = wire.render(error, dialect)
        reply.send(rendered.status, rendered.lines, rendered.body)


def _bearer(secret: Secret) -> bytes:
    return f"Bearer {secret.reveal()}".encode()


def _of_a_page(request: Request) -> bool:
    """Whether a web page asks, unless it came from here. Any page that a browser of this machine
    shows could otherwise load and unload models, and read what runs. Browsers name the page's
    origin, but not where a page asks its own host; and its name may lead here."""
    headers = request.head.headers
    host, origin = headers.get(b"host", b""), headers.get(b"origin")
    if origin and origin.partition(b"://")[2] != host:
        return True
    return bool(host) and not _names_us(host.decode("latin-1"))


@lru_cache(maxsize=64)
def _names_us(host: str) -> bool:
    """Whether no page of the internet can have been loaded from ``host``: an address, this
    machine's name, or one without a domain."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if "." not in name or name == socket.gethostname() or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost.localdomain"
    return True
