"""The way of an operator's command to the administration.

Over a running gateway's API, or to the ledger itself where the gateway is down.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import click

from helexa.cli.options import endpoint_options

F = TypeVar("F", bound=Callable[..., Any])


class Door(Protocol):
    """Whoever answers the ``/admin`` routes."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer.

        Raises:
            click.ClickException: Refused; the message is the administration's own.
        """

    def text(self, path: str) -> str:
        """The answer of a GET as it came, for what is no JSON."""


class Remote:
    """A running gateway."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        self._endpoint = endpoint
        self._key = key

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """See ``Door``."""
        return json.loads(self._answer(method, path, body))

    def text(self, path: str) -> str:
        """See ``Door``."""
        return self._answer("GET", path, None).decode()

    def _answer(self, method: str, path: str, body: object) -> bytes:
        from helexa.cli.remote import ask

        status, answer = ask(self._endpoint, method, path, body, key=self._key, timeout=60)
        if status >= 300:
            raise click.ClickException(refusal(status, answer))
        return answer


def refusal(status: int, answer: bytes) -> str:
    """What an error envelope says, and which key to use when that was the matter."""
    try:
        message = str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The gateway answered with status {status}."
    if status in (401, 403):
        message += " Pass a key that may with --key or in HELEXA_KEY."
    return message


def listed_by(endpoint: str, key: str | None) -> list[dict[str, Any]]:
    """The entries of ``/v1/models``.

    Raises:
        click.ClickException: The gateway does not say; the message is its own.
    """
    from helexa.cli.remote import Unreachable, ask

    code, answer = ask(endpoint, "GET", "/v1/models", key=key)
    if code != 200:
        raise Unreachable(f"{endpoint}/v1/models answered {code}: {refusal(code, answer)}")
    try:
        listed: list[dict[str, Any]] = json.loads(answer)["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"{endpoint} does not answer like helexa: {error}") from error
    return listed


def door_options(command: F) -> F:
    """``--endpoint`` and ``--key``, or ``--ledger``; the command gets a ``door``."""

    @functools.wraps(command)
    def with_door(
        *args: Any, endpoint: str, key: str | None, ledger: str | None, **more: Any
    ) -> object:
        return command(*args, door=open_door(endpoint, key, ledger), **more)

    option = click.option(
        "--ledger",
        metavar="URL",
        help="Work on this ledger itself, without a gateway: sqlite:///FILE or postgresql://…",
    )
    return cast("F", endpoint_options(option(with_door)))


def open_door(endpoint: str, key: str | None, ledger: str | None = None) -> Door:
    """The door that the options name."""
    if ledger is None:
        return Remote(endpoint, key)
    from helexa.cli.offline import Offline

    return Offline(ledger)
