"""When a node on this machine is asked over its socket, and when it is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from helexa.core.fleet import Discovery, LocalSocket
from helexa.cortex.fleet.shortcut import Shortcut
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.unix import bound_unix
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

PORT = 13_131


@asynccontextmanager
async def node(told: LocalSocket, secret: str = "") -> AsyncIterator[list[bytes]]:
    """Answers everything on ``told.path`` as a node does its discovery; the heads it has seen."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        known = secret.encode() in head
        body = msgspec.json.encode(Discovery(socket=told)) if known else json.dumps({}).encode()
        status = b"200 OK" if known else b"401 Unauthorized"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=bound_unix(Path(told.path)))
    try:
        yield seen
    finally:
        server.close()


def shortcut(
    endpoint: str = f"http://127.0.0.1:{PORT}", secret: str = ""
) -> tuple[Shortcut, UpstreamPool, list[str]]:
    loop = asyncio.get_running_loop()
    pool = UpstreamPool(Origin(port=PORT), Wheel(loop), loop)
    said: list[str] = []
    headers = {"authorization": f"Bearer {secret}"}
    return Shortcut(pool, endpoint, headers, said.append), pool, said


async def test_the_node_that_named_a_socket_and_answers_there_is_asked_there(
    tmp_path: Path,
) -> None:
    told = LocalSocket(str(tmp_path / "s"), "one", PORT)
    way, pool, said = shortcut(secret="between us")
    async with node(told, secret="Bearer between us") as seen:
        for _ in range(2):
            await way.offered(told)
        assert (way.path, pool.shortcut) == (told.path, told.path)
        assert said == [f"asked over {told.path}"]
        assert seen[0].startswith(b"GET /discovery ")
    await way.offered(None)  # it has a new life, without a socket
    assert (way.path, said[1:]) == (None, ["asked over the network again"])


@pytest.mark.parametrize("trouble", ["another node", "a wrong secret", "nobody"])
async def test_a_socket_that_is_not_that_nodes_is_left_alone_and_said_once(
    trouble: str, tmp_path: Path
) -> None:
    told = LocalSocket(str(tmp_path / "s"), "one", PORT)
    there = LocalSocket(told.path, "two" if trouble == "another node" else "one", PORT)
    way, _, said = shortcut(secret="ours")
    if trouble == "nobody":
        there = LocalSocket(str(tmp_path / "t"), "one", PORT)
    async with node(there, secret="theirs" if trouble == "a wrong secret" else "ours"):
        for _ in range(3):
            await way.offered(told)
    assert way.path is None
    (why,) = said
    assert why.startswith(f"asked over the network, {told.path} cannot be used: ")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8080", f"https://127.0.0.1:{PORT}"])
async def test_what_the_operator_put_in_between_is_not_gone_around(
    endpoint: str, tmp_path: Path
) -> None:
    told = LocalSocket(str(tmp_path / "s"), "one", PORT)
    way, _, said = shortcut(endpoint)
    async with node(told) as seen:
        await way.offered(told)
    assert (way.path, said, seen) == (None, [], [])
