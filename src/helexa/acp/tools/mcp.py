"""Tools of MCP servers that the editor passes along: stdio, http, sse; through the ``mcp`` SDK.

Each server lives in a task of its own, because the SDK's connections must be closed where they
were opened. A server that does not start costs its tools and one note, never the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from helexa.acp.protocol.updates import Kind
from helexa.acp.tools.base import Context, Done, Json, Prepared, ToolTrouble
from helexa.core.chat import Image, Part, Text

START_S = 60.0
"""Some are downloaded when they are started for the first time."""
CALL_S = 300.0
"""A call may take as long, and a server that is asked over HTTP may be silent as long."""
_HTTP_S = 30.0
_LONGEST_NAME = 64


class McpTool:
    """One tool of a server, under ``server__tool``."""

    kind: Kind = "other"
    in_plan = False

    def __init__(self, server: McpServer, found: Any) -> None:
        self.name = _callable(f"{server.name}__{found.name}")
        self.description = found.description or found.name
        self.parameters: Json = found.input_schema or {"type": "object", "properties": {}}
        hints = getattr(found, "annotations", None)
        self.reads_only = bool(getattr(hints, "read_only_hint", False))
        self._server = server
        self._tool = found.name

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``; the server checks the arguments."""
        del context

        async def perform() -> Done:
            return await self._server.call(self._tool, arguments)

        return Prepared(f"{self._server.name}: {self._tool}", perform, subject=self._server.name)


class McpServer:
    """One server while its session is open."""

    def __init__(self, config: Json) -> None:
        self.name: str = config.get("name") or "mcp"
        self.tools: list[McpTool] = []
        self._config = config
        self._session: Any = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and ask for tools.

        Raises:
            ToolTrouble: It did not come up; says why.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._live(ready))
        try:
            async with asyncio.timeout(START_S):
                await ready
        except TimeoutError:
            await self.stop()
            raise ToolTrouble(f"it did not answer within {START_S:g} s") from None
        except ImportError:
            raise ToolTrouble("the mcp package is missing: pip install 'helexa[acp]'") from None

    async def stop(self) -> None:
        """Close it, with a bound."""
        self._stop.set()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=5)
            for task in late:
                task.cancel()

    async def call(self, tool: str, arguments: Json) -> Done:
        """Call one of its tools.

        Raises:
            ToolTrouble: The server has gone, or did not answer.
        """
        if self._session is None or self._task is None or self._task.done():
            raise ToolTrouble(f"the MCP server {self.name} is not there any more")
        try:
            async with asyncio.timeout(CALL_S):
                found = await self._session.call_tool(tool, arguments)
        except TimeoutError:
            raise ToolTrouble(f"{self.name} did not answer within {CALL_S:g} s") from None
        except Exception as error:
            raise ToolTrouble(f"{self.name} failed: {error}") from error
        return Done(tuple(_parts(found.content)), failed=bool(found.is_error))

    async def _live(self, ready: asyncio.Future[None]) -> None:
        try:
            async with _connected(self._config) as session:
                await session.initialize()
                self.tools = [McpTool(self, found) async for found in _listed(session)]
                self._session = session
                ready.set_result(None)
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001  # whatever the SDK or the server throws
            if not ready.done():
                kind = error if isinstance(error, ImportError) else ToolTrouble(_cause(error))
                ready.set_exception(kind)
        finally:
            self._session = None


async def _listed(session: Any) -> AsyncIterator[Any]:
    """Its tools, page by page."""
    from mcp.types import PaginatedRequestParams  # noqa: PLC0415

    page = await session.list_tools()
    while True:
        for tool in page.tools:
            yield tool
        if not page.next_cursor:
            return
        page = await session.list_tools(params=PaginatedRequestParams(cursor=page.next_cursor))


def _callable(name: str) -> str:
    """A name that every dialect takes: editors let people call their servers anything."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST_NAME]


@contextlib.asynccontextmanager
async def _connected(config: Json) -> AsyncIterator[Any]:
    """An open session with the server that ``config`` names."""
    from mcp import ClientSession  # noqa: PLC0415  # a second of imports, only where it is used

    async with _transport(config) as (read, write, *_), ClientSession(read, write) as session:
        yield session


def _transport(config: Json) -> Any:
    headers = {h["name"]: h["value"] for h in config.get("headers") or ()}
    if config.get("type") == "sse":
        from mcp.client.sse import sse_client  # noqa: PLC0415

        return sse_client(config["url"], headers=headers)
    if config.get("type") == "http":
        return _streamable_http(config["url"], headers)
    from mcp import StdioServerParameters, stdio_client  # noqa: PLC0415

    return stdio_client(
        StdioServerParameters(
            command=config["command"],
            args=config.get("args") or [],
            env={v["name"]: v["value"] for v in config.get("env") or ()} or None,
        )
    )


@contextlib.asynccontextmanager
async def _streamable_http(url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    """The streams of a server behind ``url``; the SDK leaves a client with headers to us."""
    import httpx2  # noqa: PLC0415
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    timeout = httpx2.Timeout(_HTTP_S, read=CALL_S)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


def _parts(content: Sequence[Any]) -> list[Part]:
    parts: list[Part] = []
    for block in content:
        if getattr(block, "type", "") == "text":
            parts.append(Text(block.text))
        elif getattr(block, "type", "") == "image":
            parts.append(Image(f"data:{block.mime_type};base64,{block.data}"))
        else:
            parts.append(Text(f"({getattr(block, 'type', 'something')} that cannot be shown)"))
    return parts or [Text("(nothing)")]


def _cause(error: BaseException) -> str:
    """The innermost reason of the groups that the SDK wraps around one."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
