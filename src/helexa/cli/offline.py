"""The administration without a gateway: the same handlers, over the ledger itself.

A gateway that runs on the same ledger takes a change in within a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import click

from helexa.cli.door import refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

    from helexa.cortex.ledger.store import Store


class Offline:
    """A ``Door`` to a ledger.

    Args:
        url: As in ``[ledger] url``; a file must exist.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """See ``Door``."""
        return json.loads(self._answer(method, path, body))

    def text(self, path: str) -> str:
        """See ``Door``."""
        return self._answer("GET", path, None).decode()

    def _answer(self, method: str, path: str, body: object) -> bytes:
        from helexa.core.settings import SettingsError
        from helexa.cortex.ledger.database import LedgerUnavailable

        data = b"" if body is None else json.dumps(body).encode()
        try:
            _check_file(self._url)
            status, answer = asyncio.run(_on(self._url, method, path, data))
        except (SettingsError, LedgerUnavailable) as error:
            raise click.ClickException(str(error).replace("ledger.url: ", "--ledger: ")) from error
        if status == 404 and path.startswith("/v1/"):
            raise click.UsageError("a key's own view needs a gateway; leave --ledger out")
        if status >= 300:
            raise click.ClickException(refusal(status, answer))
        return answer


def _check_file(url: str) -> None:
    from helexa.cortex.ledger.database import sqlite_path

    if url.startswith("sqlite:") and not Path(sqlite_path(url)).is_file():
        raise click.ClickException(f"there is no ledger at {sqlite_path(url)}")


async def _on(url: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    from helexa.cortex.ledger.store import Store

    store = Store(url, asyncio.get_running_loop())
    try:
        return await call(await administration(store), method, path, body)
    finally:
        await store.close()


async def administration(store: Store) -> ASGIApp:
    """The routes of keys and usage over a store; whoever can open it may use them."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from helexa.core.errors import HelexaError
    from helexa.core.logging import get_logger
    from helexa.cortex.auth import KeyTable
    from helexa.cortex.keys.keyring import Keyring
    from helexa.cortex.ledger.keys_sql import SqlKeys
    from helexa.cortex.profiles import Profiles, load_profiles
    from helexa.cortex.routes.keys import KeyRoutes
    from helexa.cortex.routes.respond import refusal as refuse
    from helexa.cortex.routes.usage import UsageRoutes
    from helexa.cortex.settings import DEFAULT_MODELS_PATH
    from helexa.cortex.usage import UsageBook

    table = KeyTable((), required=True, now=time.time)
    ring = Keyring({}, {}, SqlKeys(store), table, now=time.time, log=get_logger())
    await ring.refresh()
    catalogue = load_profiles(DEFAULT_MODELS_PATH) if DEFAULT_MODELS_PATH.exists() else Profiles()
    routes = [
        *KeyRoutes(ring, None).table(),
        *UsageRoutes(UsageBook(store, lambda: catalogue)).table(),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        return refuse(request, cast("HelexaError", error))

    return Starlette(
        routes=[Route(path, handler, methods=[method]) for method, path, handler in routes],
        exception_handlers={HelexaError: refused},
    )


async def call(app: ASGIApp, method: str, target: str, body: bytes) -> tuple[int, bytes]:
    """One request to an application in this process: status and body."""
    parts = urlsplit(target)
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(b"host", b"localhost")],
        "client": None,
        "server": None,
        "state": {"request_id": "offline"},
    }
    status, chunks = 500, [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        chunks.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(chunks)
