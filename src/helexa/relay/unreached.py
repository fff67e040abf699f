"""Why nothing can be connected to, in words: the name, the port, the way there, or TLS.

Each has another owner and another remedy, so that "could not connect" helps nobody.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl

import msgspec

_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAME = frozenset((62, 64))  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_NO_WAY = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN))
_LOOPBACK = ("127.", "[::1]", "localhost:")
_NUMBERED = re.compile(r"\[Errno (\d+)\]")


class Unreached(msgspec.Struct, frozen=True):
    """What stood in the way of a connection.

    Args:
        short: A few words without an address; may be told to anybody.
        whole: With the address, what the system said, and what to look at.
    """

    short: str
    whole: str


def unreached(error: OSError | UnicodeError, host: str, port: int) -> Unreached:
    """Words for what connecting to ``host:port`` has raised.

    Args:
        error: ``UnicodeError`` is a host name that is none.
    """
    where = _where(host, port)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error, where)
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "reason", None) or error
        return Unreached(
            "no TLS with it",
            f"no TLS with {where} ({said}): does it speak TLS at this port, or "
            "is its address to begin with http://?",
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        unknown = error.strerror if isinstance(error, socket.gaierror) else "it is not a host name"
        return Unreached(
            "its name is not known",
            f"the name {host!r} cannot be looked up ({unknown}): check its spelling, the DNS and "
            "/etc/hosts of this machine",
        )
    return _no_connection(error, where)


def silent(host: str, port: int, secs: float) -> Unreached:
    """Words for a connection that was neither made nor refused within ``secs`` seconds."""
    where = _where(host, port)
    return Unreached(
        "no connection in time",
        f"no connection to {where} within {secs:g} s: is the machine on, is this its address, "
        "and does every firewall let the port through?",
    )


def unnamed(host: str, secs: float) -> Unreached:
    """Words for a name that nobody has looked up within ``secs`` seconds."""
    return Unreached(
        "its name is not known",
        f"the name {host!r} was not looked up within {secs:g} s: check the DNS of this machine",
    )


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _distrusted(error: ssl.SSLCertVerificationError, where: str) -> Unreached:
    said = error.verify_message
    if error.verify_code == _EXPIRED:
        todo = "renew it there"
    elif error.verify_code in _OTHER_NAME:
        todo = "address it by a name that the certificate is for"
    else:
        todo = "name the authority that signed it (`ca` of a node, else SSL_CERT_FILE)"
    return Unreached(
        "its certificate is not trusted",
        f"the certificate of {where} is not trusted: {said}; {todo}",
    )


def _no_connection(error: OSError, where: str) -> Unreached:
    numbers = _numbers(error)
    said = error.strerror or str(error) or type(error).__name__
    if numbers and numbers <= {errno.ECONNREFUSED}:
        elsewhere = ", is this its port, and does it listen on more than 127.0.0.1"
        if where.startswith(_LOOPBACK):
            elsewhere = ", and is this its port"
        return Unreached(
            "nothing listens at its port",
            f"nothing listens at {where} (connection refused): is it running{elsewhere}?",
        )
    if numbers and numbers <= _NO_WAY:
        return Unreached(
            "no route to it",
            f"no route to {where} ({said}): check the address and the network of this machine",
        )
    if errno.ETIMEDOUT in numbers:
        return Unreached(
            "no connection in time",
            f"{where} does not answer ({said}): is the machine on, is this its address, and does "
            "every firewall let the port through?",
        )
    return Unreached("could not connect", f"could not connect to {where}: {said}")


def _numbers(error: OSError) -> set[int]:
    """Which errors: of one address, or of every address of a name, which asyncio puts in words."""
    if error.errno is not None:
        return {error.errno}
    if isinstance(error, ConnectionRefusedError):
        return {errno.ECONNREFUSED}
    return {int(number) for number in _NUMBERED.findall(str(error))}
