"""Run an ASGI application (the Starlette apps) on requests of this server.

Only what those apps use: HTTP scope, whole request bodies, streamed or plain answers, the
disconnect message. One task per request, owned by ``AsgiBridge`` until it ends. An app that
sends to a client that has left gets a ``ClientLeft``, which is nobody's bug; a stream that only
waits hears of it through ``receive`` (Starlette listens there up to version 2.3 of the protocol,
which is what we speak).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from helexa.relay.http1 import header_block
from helexa.relay.reply import Reply
from helexa.relay.request import Request

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class ClientLeft(OSError):
    """Nobody is there any more to send to."""


class AsgiBridge:
    """Hands requests to an ASGI app.

    Args:
        app: The application.
        on_error: Called with an exception the app let through; returns the header lines and body
            of the answer with status 500.
    """

    def __init__(
        self, app: AsgiApp, on_error: Callable[[Request, Exception], tuple[bytes, bytes]]
    ) -> None:
        self._app = app
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, request: Request, reply: Reply) -> None:
        """Start answering ``request``; the reply ends when the app is done."""
        task = asyncio.get_running_loop().create_task(self._run(request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what still runs (long-lived streams at shutdown)."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)

    async def _run(self, request: Request, reply: Reply) -> None:
        cycle = _Cycle(request, reply)
        try:
            await self._app(cycle.scope(), cycle.receive, cycle.send)
            if not reply.started and not reply.gone:
                raise RuntimeError("the application returned without an answer")
        except Exception as error:  # noqa: BLE001  # the edge: every bug of the app becomes an answer
            if not reply.gone:
                self._fail(request, reply, error)
        except asyncio.CancelledError:
            reply.end()
        finally:
            reply.abort()  # what has not ended by now has broken

    def _fail(self, request: Request, reply: Reply, error: Exception) -> None:
        headers, body = self._on_error(request, error)
        if not reply.started:
            reply.send(500, headers, body)


class _Cycle:
    def __init__(self, request: Request, reply: Reply) -> None:
        self._request = request
        self._reply = reply
        self._body_given = False
        self._gone = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        reply.on_gone = self._left
        reply.on_flow = self._flow

    def scope(self) -> Message:
        request = self._request
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method.decode("latin-1"),
            "scheme": "https" if request.secure else "http",
            "path": request.decoded_path,
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": list(request.headers.items()),
            "client": (request.peer, 0) if request.peer else None,
            "server": None,
            "state": {},
        }

    async def receive(self) -> Message:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        reply = self._reply
        if reply.gone:
            raise ClientLeft("the client has left")
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if not reply.started:
            if not more:
                self._send_whole(body)
                return
            reply.start(self._status, self._block(), body)
        elif body:
            reply.write(body)
        if not more:
            reply.end()
            self._gone.set()
        else:
            # An app that never waits by itself would hold the loop, and could not even be told
            # that its client has gone.
            await asyncio.sleep(0)
            await self._room.wait()

    def _send_whole(self, body: bytes) -> None:
        stated = None
        if self._request.head.head_only:  # what a GET would bring: the app knows, and sends none
            stated = next((v for k, v in self._headers if k.lower() == b"content-length"), None)
        self._reply.send(self._status, self._block(), body, stated)
        self._gone.set()

    def _block(self) -> bytes:
        ours = (b"content-length", b"transfer-encoding", b"connection", b"date")
        return header_block((k, v) for k, v in self._headers if k.lower() not in ours)

    def _left(self) -> None:
        self._gone.set()
        self._room.set()

    def _flow(self, paused: bool) -> None:
        if paused:
            self._room.clear()
        else:
            self._room.set()
