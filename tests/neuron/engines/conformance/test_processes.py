"""What an engine's process may do wrong, and what the node sees of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.neuron.engines.candidates import Candidate
from tests.neuron.engines.driving import Case, Exchange, Start, user

from helexa.neuron.engines.http import ask
from helexa.neuron.engines.orphans import start_time

pytestmark = pytest.mark.anyio


async def begin(case: Case, candidate: Candidate) -> Exchange:
    """A long answer of which some tokens have come."""
    exchange = await case.send({**user("Go on."), "stream": True, **candidate.endless})
    await exchange.begin()
    await exchange.until(lambda: exchange.request.cleaner.meter.output >= 3)
    return exchange


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def seen_of(pid: int | None, what: str) -> bytes:
    """What everybody on the host may read of a process."""
    return Path(f"/proc/{pid}/{what}").read_bytes()


def shared_memory_of(pids: list[int]) -> list[Path]:
    """What processes of ours have called by their number."""
    return [path for pid in pids for path in Path("/dev/shm").glob(f"*helexa-{pid}-*")]


async def ends(exchange: Exchange) -> None:
    """Return when the connection is over, however it ends."""
    try:
        while await exchange.step():
            pass
    except OSError:
        pass
    exchange.drop()


async def test_a_key_is_demanded(case: Case) -> None:
    address = replace(case.address, api_key="guessed")
    answer = await ask(address, "POST", "/v1/chat/completions", user("hi"))
    assert answer.status == 401


async def test_neither_argv_nor_environment_hold_the_key(case: Case) -> None:
    key = case.address.api_key.encode()
    pids = case.process.pids()
    assert case.process.pid in pids
    assert all(key not in seen_of(pid, "cmdline") + seen_of(pid, "environ") for pid in pids)
    name, model = case.engine.name, case.facts.model_id
    line = seen_of(case.process.pid, "cmdline")
    assert f"--engine\0{name}\0--model\0{model}".encode() in line


async def test_a_killed_engine_takes_its_request_along_and_comes_back(
    start: Start, candidate: Candidate
) -> None:
    async with start() as case:
        exchange = await begin(case, candidate)
        before, life, pids = case.address, case.process.life, case.process.pids()
        assert case.process.pid is not None
        os.kill(case.process.pid, signal.SIGKILL)
        await ends(exchange)
        assert not exchange.request.cleaner.done
        assert exchange.request.cleaner.meter.output >= 3
        await case.reaches("ready", life + 1)
        assert case.address.api_key != before.api_key
        again = await case.say("Repeat: house", max_tokens=2)
        assert again.request.cleaner.done
        states = [change.state for change in case.changes]
        assert states[-2:] == ["recovering", "ready"]
        assert states[:-2] in ([], ["starting", "ready"])
        assert not [pid for pid in pids if start_time(pid) is not None]
        assert not shared_memory_of(pids)


async def test_a_hung_engine_is_ended_by_the_watchdog_and_comes_back(
    start: Start, candidate: Candidate
) -> None:
    async with start() as case:
        exchange = await begin(case, candidate)
        life = case.process.life
        assert case.process.pid is not None
        os.kill(case.process.pid, signal.SIGSTOP)
        case.process.kill("no progress for 60 s")
        await ends(exchange)
        await case.reaches("ready", life + 1)
        died = next(change for change in case.changes if change.state == "recovering")
        assert died.reason == "the engine was ended: no progress for 60 s"


async def test_a_busy_engine_is_unloaded_within_its_bound(
    start: Start, candidate: Candidate
) -> None:
    async with start() as case:
        exchange = await begin(case, candidate)
        pid = case.process.pid
        assert pid is not None
        async with asyncio.timeout(60):
            await case.process.stop()
        assert case.process.state == "stopped"
        assert is_gone(pid)
        await ends(exchange)


async def test_a_stopped_engine_is_unloaded_within_its_bound(
    start: Start, candidate: Candidate
) -> None:
    async with start() as case:
        pid = case.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            await case.process.stop(grace_s=0.1)
        assert is_gone(pid)
