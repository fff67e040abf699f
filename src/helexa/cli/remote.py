"""Asking a running gateway or node from a command: small, synchronous, one answer."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import click


class Unreachable(click.ClickException):
    """Nobody answered, or not as helexa would."""


def get_json(
    endpoint: str, path: str, *, key: str | None = None, timeout: float = 10.0
) -> tuple[int, Any]:
    """Status and decoded body of ``GET endpoint + path``.

    Args:
        endpoint: Base URL, with or without ``/v1``.
        key: Sent as a bearer token.
        timeout: Seconds, for connecting and for each read.

    Raises:
        Unreachable: No connection, no HTTP or no JSON; names the endpoint.
    """
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    base = url.path.rstrip("/").removesuffix("/v1")
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        connection = kind(url.hostname or "", url.port, timeout=timeout)
        try:
            connection.request("GET", base + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(f"{endpoint} does not answer like helexa: {error}") from error
