"""JSON-RPC 2.0 in both directions, one object per line.

A request of the editor runs in a task of its own, so that a prompt does not hold up a cancel.
``$/cancel_request`` cancels the task of the request it names.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from helexa.core.logging import Logger
from helexa.wire.bodies import UNREADABLE

Params = dict[str, Any]
Handler = Callable[[Params], Awaitable[Any]]

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
AUTH_REQUIRED, NOT_FOUND, CANCELLED = -32000, -32002, -32800

_ID = (int, float, str, type(None))
_encode = msgspec.json.Encoder().encode


class RpcError(Exception):
    """A refusal as JSON-RPC has it."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Lines(Protocol):
    """The way out: whole lines, in order."""

    def write(self, line: bytes) -> None:
        """Queue one line."""

    async def drain(self) -> None:
        """Wait until the reader keeps up."""


class Peer:
    """One end of the conversation.

    Args:
        out: Where our lines go.
        requests: Method to handler; its return value is the result.
        notifications: Method to handler; what it returns or raises is not told.
    """

    def __init__(
        self,
        out: Lines,
        requests: dict[str, Handler],
        notifications: dict[str, Handler],
        log: Logger,
    ) -> None:
        self._out = out
        self._requests = requests
        self._notifications = notifications
        self._log = log
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._running: dict[Any, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Read until the end of input, then let go of everything."""
        try:
            while True:
                try:
                    line = await lines.readline()
                except ValueError as error:  # the rest of it comes as lines of its own
                    self._fail(None, PARSE_ERROR, f"a line is too long: {error}")
                    continue
                if not line:
                    return
                if line.strip():
                    self._take(line)
        finally:
            await self._close()

    async def ask(self, method: str, params: Params) -> Any:
        """Send a request and wait for its result; a cancelled wait cancels it over there.

        Raises:
            RpcError: It was refused, or nobody listens for an answer any more.
        """
        number = next(self._ids)
        if self._closing:
            self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            raise _gone()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            return await future
        except asyncio.CancelledError:
            self._send(
                {
                    "jsonrpc": "2.0",
                    "method": "$/cancel_request",
                    "params": {"requestId": number},
                }
            )
            raise
        finally:
            self._waiting.pop(number, None)

    async def tell(self, method: str, params: Params) -> None:
        """Send a notification."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})
        await self._out.drain()

    def _take(self, line: bytes) -> None:
        try:
            message = msgspec.json.decode(line)
        except UNREADABLE as error:
            self._fail(None, PARSE_ERROR, f"not JSON: {error}")
            return
        wrong = _wrong(message)
        if wrong is not None:
            self._fail(None, INVALID_REQUEST, wrong)
        elif "method" not in message:
            self._answered(message)
        elif message["method"] == "$/cancel_request":
            self._cancel(message)
        elif "id" in message:
            task = asyncio.ensure_future(self._serve(message))
            self._running[message["id"]] = task
        else:
            self._hear(message)

    def _answered(self, message: Params) -> None:
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            return
        error = message.get("error")
        if isinstance(error, dict):
            future.set_exception(
                RpcError(error.get("code", 0), str(error.get("message", "")), error.get("data"))
            )
        else:
            future.set_result(message.get("result"))

    def _cancel(self, message: Params) -> None:
        params = message.get("params")
        number = params.get("requestId") if isinstance(params, dict) else None
        task = self._running.get(number) if isinstance(number, _ID) else None
        if task is not None:
            task.cancel()

    def _hear(self, message: Params) -> None:
        handler = self._notifications.get(message["method"])
        if handler is None:
            return  # a notification one does not know is ignored
        task = asyncio.ensure_future(self._notice(handler, message))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _notice(self, handler: Handler, message: Params) -> None:
        try:
            params = message.get("params") or {}
            await handler(params if isinstance(params, dict) else {})
        except RpcError as error:
            self._log.warning("notification refused", method=message["method"], why=error.message)
        except Exception:  # noqa: BLE001  # the editor must not lose its agent over one message
            self._log.exception("bug", method=message["method"])

    async def _serve(self, message: Params) -> None:
        number, method = message["id"], message["method"]
        try:
            handler = self._requests.get(method)
            if handler is None:
                raise RpcError(METHOD_NOT_FOUND, f"there is no method {method!r}")
            params = message.get("params")
            if params is not None and not isinstance(params, dict):
                raise RpcError(INVALID_PARAMS, "params must be an object")
            result = await handler(params or {})
            self._send({"jsonrpc": "2.0", "id": number, "result": result})
        except asyncio.CancelledError:
            self._fail(number, CANCELLED, "cancelled")
        except RpcError as error:
            self._fail(number, error.code, error.message, error.data)
        except Exception as error:  # noqa: BLE001  # told, logged, and the agent goes on
            self._log.exception("bug", method=method)
            self._fail(number, INTERNAL_ERROR, f"a bug in the agent: {type(error).__name__}")
        finally:
            self._running.pop(number, None)

    def _fail(self, number: Any, code: int, message: str, data: Any = None) -> None:
        error: Params = {"code": code, "message": message}
        if data is not None:
            error["data"] = data
        self._send({"jsonrpc": "2.0", "id": number, "error": error})

    def _send(self, message: Params) -> None:
        self._out.write(_encode(message) + b"\n")

    async def _close(self) -> None:
        self._closing = True
        tasks = [*self._running.values(), *self._chores]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_gone())


def _gone() -> RpcError:
    return RpcError(INTERNAL_ERROR, "the editor has gone")


def _wrong(message: Any) -> str | None:
    """What makes it no message at all, in words."""
    if not isinstance(message, dict):
        return "a message is an object"
    if not isinstance(message.get("method", ""), str):
        return "`method` must be a string"
    if not isinstance(message.get("id"), _ID):
        return "`id` must be a number or a string"
    return None


def text(params: Params, name: str) -> str:
    """A member that must be a string.

    Raises:
        RpcError: It is not.
    """
    value = params.get(name)
    if not isinstance(value, str):
        raise RpcError(INVALID_PARAMS, f"`{name}` must be a string")
    return value
