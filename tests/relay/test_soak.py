"""A short soak: memory is flat once it is warm. ``make soak`` is the long one."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest
from tests.relay.proxy import SSE_HEAD, Proxy
from tests.relay.rig import answering, client, get, pool_for, post, serving, upstream

from helexa.relay.attempt import Attempt
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.server import ServerProtocol
from helexa.relay.upstream import UpstreamConnection

pytestmark = pytest.mark.anyio

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n" + b"y" * 300
STREAM = SSE_HEAD + b"c\r\ndata: {...}\n\r\n1\r\n\n\r\n" * 3 + b"0\r\n\r\n"


def resident() -> int:
    """kB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError


def living(*kinds: type) -> int:
    return sum(isinstance(o, kinds) for o in gc.get_objects())


ALONE = "HELEXA_SOAK_ALONE"
"""Set in the process that is measured: in one that has run a thousand other tests, what grows
is their heap."""


async def test_memory_is_flat_over_20_000_requests() -> None:
    if ALONE not in os.environ:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__),
            env={**os.environ, ALONE: "1"},
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await child.communicate()
        assert child.returncode == 0, said.decode()
        return
    async with upstream(answering(PLAIN)) as plain, upstream(answering(STREAM)) as streams:
        plain_proxy, stream_proxy = Proxy(pool_for(plain)), Proxy(pool_for(streams))
        async with serving(plain_proxy) as a, serving(stream_proxy) as b:

            async def worker(port: int, request: bytes, times: int) -> None:
                while times > 0:
                    async with client(port) as raw:
                        for _ in range(min(times, 100)):
                            raw.send(request)
                            assert (await raw.answer()).status == 200
                    times -= 100

            async def requests(each: int) -> None:
                await asyncio.gather(
                    *(worker(a.port, post("/plain", b"x" * 500), each) for _ in range(10)),
                    *(worker(b.port, get("/s"), each) for _ in range(10)),
                )

            gc.disable()  # nothing of ours may need the collector
            try:
                # The warm-up is as long as the measurement: what the test's own clients leave for
                # the collector has then found its place in the heap.
                await requests(500)
                gc.collect()
                before = resident()
                await requests(500)
                kinds = (Attempt, Reply, Request, ServerProtocol, UpstreamConnection)
                assert {k.__name__: n for k in kinds if (n := living(k)) > 60} == {}
            finally:
                gc.enable()
            gc.collect()
            assert resident() - before < 4096
