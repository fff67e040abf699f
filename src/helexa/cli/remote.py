"""Asking a running gateway or node from a command: small, synchronous, one answer."""

from __future__ import annotations

import json
from collections.abc import Generator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click


class Unreachable(click.ClickException):
    """Nobody answered, or not as helexa would."""


def get_json(
    endpoint: str, path: str, *, key: str | None = None, timeout: float = 10.0
) -> tuple[int, Any]:
    """Status and decoded body of ``GET endpoint + path``; see ``ask``."""
    status, body = ask(endpoint, "GET", path, key=key, timeout=timeout)
    try:
        return status, json.loads(body)
    except ValueError as error:
        raise Unreachable(f"{endpoint} does not answer like helexa: {error}") from error


def ask(
    endpoint: str,
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = None,
    timeout: float = 10.0,
) -> tuple[int, bytes]:
    """Status and body of one request.

    Args:
        endpoint: Base URL, with or without ``/v1``.
        body: Sent as JSON unless None.
        key: Sent as a bearer token.
        timeout: Seconds, for connecting and for each read.

    Raises:
        Unreachable: No connection or no HTTP; names the endpoint.
    """
    connection = None
    try:
        connection = _sent(endpoint, method, path, body, key, timeout)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except _NO_ANSWER as error:
        raise _unreachable(endpoint, error) from error
    finally:
        if connection is not None:
            connection.close()


def lines_of(
    endpoint: str, path: str, body: object, *, key: str | None, timeout: float
) -> tuple[int, Generator[bytes, None, None]]:
    """Status and the lines of one POST's answer, as they come; arguments and errors as ``ask``.

    Close the lines when no more of them are wanted.
    """
    try:
        connection = _sent(endpoint, "POST", path, body, key, timeout)
        answer = connection.getresponse()
    except _NO_ANSWER as error:
        raise _unreachable(endpoint, error) from error

    def lines() -> Generator[bytes, None, None]:
        try:
            while line := answer.readline():
                yield line
        except _NO_ANSWER as error:
            raise _unreachable(endpoint, error) from error
        finally:
            answer.close()  # it outlives its connection where that ends with it
            connection.close()

    return answer.status, lines()


_PORTS = {"http": 80, "https": 443}
_NO_ANSWER = (OSError, HTTPException, ValueError)


def _sent(
    endpoint: str, method: str, path: str, body: object, key: str | None, timeout: float
) -> HTTPConnection:
    url = split_endpoint(endpoint)
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    headers = {"accept": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {_sendable(key)}"
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    try:
        base = url.path.rstrip("/").removesuffix("/v1")
        data = None if body is None else json.dumps(body)
        connection.request(method, base + path, data, headers)
    except BaseException:
        connection.close()
        raise
    return connection


def _unreachable(endpoint: str, error: Exception) -> Unreachable:
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(
            f"nobody listens at {endpoint}; `helexa up` starts a gateway on this machine, "
            "--endpoint (HELEXA_ENDPOINT) names another"
        )
    if isinstance(error, TimeoutError):
        return Unreachable(f"{endpoint} does not answer in time: {error}")
    if isinstance(error, OSError | UnicodeError) and not isinstance(error, ConnectionError):
        from helexa.relay.unreached import unreached

        url = split_endpoint(endpoint)
        port = url.port or _PORTS[url.scheme]
        return Unreachable(f"{endpoint}: {unreached(error, url.hostname or '', port).whole}")
    return Unreachable(f"{endpoint} does not answer like helexa: {error}")


def split_endpoint(endpoint: str) -> SplitResult:
    """A base URL in its parts; ``http`` where no scheme is said.

    Raises:
        click.UsageError: It is none.
    """
    if "@" in endpoint:
        raise click.UsageError(
            "the endpoint names a user, whom nobody is told; give the key with --key or HELEXA_KEY"
        )
    try:
        url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    except ValueError:
        pass  # half an IPv6 address, or a port that is none
    raise click.UsageError(
        f"the endpoint {endpoint!r} is not a base URL; write for example http://host:31313"
    )


def _sendable(key: str) -> str:
    """The key as a header may carry it; what refuses it later would show it."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise click.UsageError("the key has letters in it that no key has; check HELEXA_KEY, --key")
    return key
