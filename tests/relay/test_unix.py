"""Unix sockets, and pools that take one as a shortcut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.relay.rig import answering, ask, attempt_on, pool_for, until, upstream
from tests.relay.test_pool import OK, use

from helexa.relay.unix import LONGEST_PATH, bound_unix

pytestmark = pytest.mark.anyio

NOBODY = 65_534


@asynccontextmanager
async def local(path: Path) -> AsyncIterator[list[int]]:
    """Answers ``OK`` on a Unix socket; what it has accepted."""
    accepted: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(1)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(OK)
        writer.close()

    server = await asyncio.start_unix_server(serve, sock=bound_unix(path))
    try:
        yield accepted
    finally:
        server.close()


@contextlib.contextmanager
def somebody_else(path: Path) -> Iterator[None]:
    """Who may not write to ``path``."""
    path.chmod(0)
    if os.geteuid():  # the owner of a file needs its mode's leave, root does not
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_socket_is_for_its_user_only_and_takes_the_place_of_a_dead_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with bound_unix(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_ISSOCK(path.stat().st_mode)


async def test_the_socket_of_somebody_who_listens_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with local(path) as accepted:
        with pytest.raises(OSError, match="in use by another process"):
            bound_unix(path)
        async with upstream(answering(OK)) as port:
            pool = pool_for(port)
            pool.take_shortcut(str(path))
            assert (await ask(attempt_on(pool))).status == 200
            pool.close()
            await until(lambda: pool.open == 0)
        assert accepted


async def test_a_path_that_fits_no_address_or_is_a_file_is_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * LONGEST_PATH)
    with pytest.raises(OSError, match="longer than the 107 bytes"):
        bound_unix(long)
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(OSError, match="in use"):
        bound_unix(file)
    assert file.read_text() == "kept"


async def test_a_shortcut_is_taken_by_every_new_connection_and_no_old_one_is_used_again(
    tmp_path: Path,
) -> None:
    async with upstream(answering(OK)) as port, local(tmp_path / "socket") as accepted:
        pool = pool_for(port)
        await asyncio.gather(*(ask(attempt_on(pool)) for _ in range(3)))
        busy = await pool.take()
        pool.take_shortcut(str(tmp_path / "socket"))
        assert pool.idle == 0
        await use(busy)
        assert (pool.idle, pool.busy) == (0, 0)
        for _ in range(3):
            assert (await ask(attempt_on(pool))).status == 200
        assert (len(accepted), pool.open, pool.idle) == (1, 1, 1)
        pool.take_shortcut(None)
        assert (await ask(attempt_on(pool))).status == 200
        assert (len(accepted), pool.open) == (1, 1)
        pool.close()
        await until(lambda: pool.open == 0)


@pytest.mark.parametrize("trouble", ["missing", "dead", "no folder", "of somebody else"])
async def test_a_shortcut_that_leads_nowhere_costs_no_request(trouble: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    others: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    with contextlib.ExitStack() as kept:
        if trouble == "dead":
            bound_unix(path).close()
        elif trouble == "no folder":
            path.write_text("")
            path = path / "socket"
        elif trouble == "of somebody else":
            kept.enter_context(bound_unix(path)).listen()
            others = somebody_else(path)
        async with upstream(answering(OK)) as port:
            lost: list[OSError] = []
            pool = pool_for(port)
            pool.take_shortcut(str(path), lost.append)
            with others:
                done = await asyncio.gather(*(ask(attempt_on(pool)) for _ in range(4)))
            assert [d.status for d in done] == [200] * 4
            assert (len(lost), pool.shortcut) == (1, None)
            pool.close()
            await until(lambda: pool.open == 0)


async def test_a_listener_that_is_full_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sock = bound_unix(path)
    sock.listen(0)
    first = socket.socket(socket.AF_UNIX)
    first.connect(str(path))
    async with upstream(answering(OK)) as port:
        pool = pool_for(port)
        pool.take_shortcut(str(path))
        asking = asyncio.create_task(ask(attempt_on(pool)))
        await asyncio.sleep(0)
        sock.accept()[0].close()
        taken, _ = await asyncio.to_thread(sock.accept)
        await asyncio.to_thread(taken.recv, 1000)
        taken.sendall(OK)
        assert (await asking).status == 200
        assert pool.shortcut == str(path)
        taken.close()
    first.close()
    sock.close()
    pool.close()
