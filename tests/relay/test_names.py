"""Names that are looked up: one at a time each, past a resolver that is slow, away or wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from threading import Event

import pytest
from aiohappyeyeballs import AddrInfoType
from tests.relay.rig import until

from helexa.core.errors import UpstreamTimeout
from helexa.relay.client import KeptClient
from helexa.relay.names import Name, look_up
from helexa.relay.pool import ConnectFailed, Origin, UpstreamPool
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

HERE = look_up("127.0.0.1", 80)
THERE = look_up("127.0.0.2", 80)


class Resolver:
    """Says what it is told to say, once it is let."""

    def __init__(self, says: Sequence[AddrInfoType] | OSError = HERE) -> None:
        self.says = says
        self.open = Event()
        self.open.set()
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[AddrInfoType]:
        self.asked.append(f"{host}:{port}")
        assert self.open.wait(60)
        if isinstance(self.says, OSError):
            raise self.says
        return self.says

    def name(self) -> Name:
        return Name(asyncio.get_running_loop(), "node.example", 80, self)


async def test_a_name_that_is_not_answered_keeps_no_other_one_waiting() -> None:
    """More of them than the loop has threads for names."""
    slow = Resolver()
    slow.open.clear()
    names = [slow.name() for _ in range(12)]
    waiting = [asyncio.create_task(name.addresses()) for name in names]
    await until(lambda: len(slow.asked) == len(names))
    assert all(name.unanswered for name in names)
    async with asyncio.timeout(60):
        assert await Name(asyncio.get_running_loop(), "localhost", 80).addresses()
    slow.open.set()
    assert await asyncio.gather(*waiting) == [HERE] * len(names)
    assert not any(name.unanswered for name in names)


async def test_a_name_is_looked_up_once_at_a_time_whoever_asks_and_leaves() -> None:
    slow = Resolver()
    slow.open.clear()
    name = slow.name()
    waiting = [asyncio.create_task(name.addresses()) for _ in range(50)]
    await until(lambda: slow.asked)
    waiting.pop().cancel()
    slow.open.set()
    assert await asyncio.gather(*waiting) == [HERE] * 49
    assert len(slow.asked) == 1
    slow.says = THERE
    assert await name.addresses() == THERE
    assert len(slow.asked) == 2


async def test_while_the_resolver_is_slow_or_away_the_last_answer_holds() -> None:
    resolver = Resolver()
    name = resolver.name()
    assert await name.addresses() == HERE
    resolver.says = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert await name.addresses() == HERE
    resolver.says = THERE
    resolver.open.clear()
    assert await name.addresses() == HERE
    assert not name.unanswered
    resolver.open.set()
    await until(lambda: name._asking is None)
    assert await name.addresses() == THERE


async def test_a_name_that_is_no_more_is_not_known() -> None:
    resolver = Resolver()
    name = resolver.name()
    assert await name.addresses() == HERE
    resolver.says = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(socket.gaierror):
        await name.addresses()


async def test_an_address_is_never_looked_up() -> None:
    resolver = Resolver()
    loop = asyncio.get_running_loop()
    assert await Name(loop, "127.0.0.1", 80, resolver).addresses() == HERE
    [(family, *_, address)] = await Name(loop, "::1", 80, resolver).addresses()
    assert (family, address[:2]) == (socket.AF_INET6, ("::1", 80))
    assert not resolver.asked


@pytest.mark.parametrize("host", ["ex ample", "a" * 64 + ".example", "nul\0.example"])
def test_what_can_be_no_name_is_nobodys(host: str) -> None:
    with pytest.raises(socket.gaierror):
        look_up(host, 80)


async def test_who_waits_for_a_resolver_is_not_sent_to_a_firewall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Resolver()
    slow.open.clear()
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop, 0.01)
    pool = UpstreamPool(Origin("node.example", 80), wheel, loop, connect_secs=0.2)
    monkeypatch.setattr(pool, "_name", slow.name())
    with pytest.raises(ConnectFailed, match=r"'node\.example' was not looked up within 0\.2 s"):
        await pool.take()
    with pytest.raises(UpstreamTimeout, match=r"'node\.example' was not looked up within 0\.1 s"):
        await KeptClient(pool, wheel, loop).call("GET", "http://node.example/", None, {}, 0.1)
    slow.open.set()
