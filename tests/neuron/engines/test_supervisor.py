"""The supervisor on real processes: starts, deaths, recoveries, ends, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.neuron.engines.driving import HOST, QUICK, running

from helexa import spark
from helexa.core.errors import ServiceUnavailable
from helexa.neuron.engines import process as engine_process
from helexa.neuron.engines.base import Address, Engine, Launch, Plan
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import (
    EngineChange,
    EngineProcess,
    EngineSpec,
    SupervisorSettings,
    backoff,
)
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.gguf import read_gguf
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return inspect(spark.gguf_path(), spark.MODEL_ID)


def process(
    engine: Engine,
    facts: ModelFacts,
    state: Path,
    changes: list[EngineChange],
    settings: SupervisorSettings = QUICK,
    memory_limit_mb: int | None = None,
) -> EngineProcess:
    plan = engine.plan(facts, HOST, {"slots": 2})

    def launch() -> Launch:
        made = engine.launch(facts, plan, facts.model_id)
        return replace(made, memory_limit_mb=memory_limit_mb)

    spec = EngineSpec(
        engine.name,
        facts.model_id,
        launch,
        lambda address: engine.ready(address, facts.model_id),
    )
    return EngineProcess(spec, state, settings=settings, on_change=changes.append)


def failing(*faults: str | None) -> FakeEngine:
    """A fake engine whose next starts fail in the given ways, and then succeed."""
    coming: Iterator[str | None] = iter(faults)
    return FakeEngine(os.environ, faults=lambda: next(coming, None))


async def reason_of(engine: Engine, facts: ModelFacts, state: Path, **more: object) -> str:
    """Why a first load failed."""
    changes: list[EngineChange] = []
    made = process(engine, facts, state, changes, **more)  # type: ignore[arg-type]
    with pytest.raises(ServiceUnavailable) as refused:
        await made.start()
    assert [change.state for change in changes] == ["starting", "failed"]
    assert made.pid is None
    await made.stop()
    assert made.state == "failed"
    return refused.value.message


async def test_a_first_load_that_exits_is_final_and_says_why(
    facts: ModelFacts, tmp_path: Path
) -> None:
    assert await reason_of(failing("exit"), facts, tmp_path) == "the fake model cannot be loaded"


async def test_a_first_load_killed_for_memory_says_so(facts: ModelFacts, tmp_path: Path) -> None:
    reason = await reason_of(failing("oom"), facts, tmp_path)
    assert reason == "the engine was killed by SIGKILL (out of memory?)"


async def test_an_engine_that_never_reports_fails_at_its_deadline(
    facts: ModelFacts, tmp_path: Path
) -> None:
    settings = SupervisorSettings(start_deadline_s=0.5)
    reason = await reason_of(failing("silent"), facts, tmp_path, settings=settings)
    assert reason.startswith("its engine was not ready after 0.5 s")


async def test_an_engine_that_refuses_connections_fails(facts: ModelFacts, tmp_path: Path) -> None:
    reason = await reason_of(failing("no_port"), facts, tmp_path)
    assert "cannot be reached" in reason


async def test_nan_at_the_first_token_fails_the_load(facts: ModelFacts, tmp_path: Path) -> None:
    assert "NaN" in await reason_of(failing("insane"), facts, tmp_path)


class Babbling(FakeEngine):
    """Its probe meets an answer that nobody has thought of."""

    async def ready(self, address: Address, model_id: str) -> None:
        raise OverflowError("int too large to convert to float")


async def test_a_first_answer_that_nobody_has_thought_of_fails_the_load(
    facts: ModelFacts, tmp_path: Path
) -> None:
    assert "cannot be read" in await reason_of(Babbling(os.environ), facts, tmp_path)


@pytest.mark.parametrize("error", [ValueError("poll is 'x'"), ServiceUnavailable("not installed")])
async def test_an_engine_that_cannot_even_be_launched_fails_the_load(
    facts: ModelFacts, tmp_path: Path, error: Exception
) -> None:
    class Unlaunched(FakeEngine):
        def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
            raise error

    async with asyncio.timeout(30):
        assert str(error) in await reason_of(Unlaunched(os.environ), facts, tmp_path)


async def test_an_engine_that_prints_while_it_starts_fills_no_disk(
    facts: ModelFacts, tmp_path: Path
) -> None:
    changes: list[EngineChange] = []
    settings = SupervisorSettings(start_deadline_s=60, log_check_s=0.02)
    made = process(failing("silent"), facts, tmp_path, changes, settings)
    kept = made.log.path.with_name(made.log.path.name + ".1")
    starting = asyncio.create_task(made.start())
    async with asyncio.timeout(30):
        while not kept.exists():
            with contextlib.suppress(FileNotFoundError):  # it has not been started yet
                os.truncate(made.log.path, 5 << 20)
            await asyncio.sleep(0.01)
    assert changes[-1].state == "starting"
    await made.stop()
    with pytest.raises(ServiceUnavailable):
        await starting


async def test_real_weights_that_are_nan_fail_the_load(tmp_path: Path) -> None:
    header = read_gguf(spark.gguf_path())
    norm = next(tensor for tensor in header.tensors if tensor.name == "output_norm.weight")
    end = max(tensor.offset + -(-tensor.size // 32) * 32 for tensor in header.tensors)
    raw = bytearray(spark.gguf_path().read_bytes())
    at = len(raw) - end + norm.offset
    raw[at : at + norm.size] = struct.pack("<f", float("nan")) * norm.elements
    broken = tmp_path / "nan.gguf"
    broken.write_bytes(raw)
    reason = await reason_of(LlamaCpp(os.environ), inspect(broken, "x/nan"), tmp_path)
    assert "not a number" in reason


async def test_a_file_that_was_truncated_meanwhile_fails_with_the_engines_reason(
    facts: ModelFacts, tmp_path: Path
) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(spark.gguf_path().read_bytes()[:1_000_000])
    reason = await reason_of(LlamaCpp(os.environ), replace(facts, path=short), tmp_path)
    assert "could not load the model" in reason
    assert "not within the file bounds" in reason


async def test_a_load_beyond_its_memory_limit_fails_and_the_daemon_lives(
    facts: ModelFacts, tmp_path: Path
) -> None:
    reason = await reason_of(LlamaCpp(os.environ), facts, tmp_path, memory_limit_mb=180)
    assert "could not load" in reason or "killed" in reason or "exited" in reason


async def test_later_deaths_are_recovered_from_with_growing_pauses(
    facts: ModelFacts, tmp_path: Path
) -> None:
    engine = failing(None, "exit", "oom", None)
    async with running(engine, facts, tmp_path, {"slots": 2}) as case:
        assert case.process.pid is not None
        os.kill(case.process.pid, signal.SIGKILL)
        await case.reaches("ready", 4)
        recovering = [change for change in case.changes if change.state == "recovering"]
        assert [change.retry_in_s for change in recovering] == [0.02, 0.04, 0.08]
        assert recovering[1].reason == "the fake model cannot be loaded"
        assert case.process.address is not None
        assert case.process.resident_mb() > 5


async def test_stopping_while_it_starts_ends_the_start(facts: ModelFacts, tmp_path: Path) -> None:
    changes: list[EngineChange] = []
    made = process(failing("silent"), facts, tmp_path, changes)
    started = asyncio.create_task(made.start())
    assert await eventually(lambda: made.pid is not None, 30)
    await made.stop()
    with pytest.raises(ServiceUnavailable):
        await started
    assert changes[-1].state == "stopped"


async def test_stopping_while_it_waits_to_restart_ends_the_wait(
    facts: ModelFacts, tmp_path: Path
) -> None:
    settings = SupervisorSettings(backoff_min_s=300, backoff_max_s=300)
    changes: list[EngineChange] = []
    made = process(failing(), facts, tmp_path, changes, settings)
    await made.start()
    made.kill("a test")
    assert await eventually(lambda: made.state == "recovering", 20)
    async with asyncio.timeout(60):
        await made.stop()
    assert changes[-1].state == "stopped"


async def test_a_process_that_the_kernel_holds_is_not_waited_for_without_end(
    facts: ModelFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "KILLED_S", 0.1)
    settings = SupervisorSettings(backoff_min_s=300, backoff_max_s=300, log_check_s=0.1)
    changes: list[EngineChange] = []
    made = process(failing(), facts, tmp_path, changes, settings)
    await made.start()
    child = made._child
    assert child is not None
    monkeypatch.setattr(child, "signal_group", lambda _: None)  # as in an uninterruptible sleep
    made.kill("it made no progress")
    assert await eventually(lambda: made.state == "recovering", 60)
    assert f"process {child.pid} was killed and does not end" in (made.reason or "")
    async with asyncio.timeout(60):
        await made.stop()
    os.kill(child.pid, signal.SIGKILL)  # the driver lets go after all
    assert await eventually(lambda: child._pidfd < 0, 60), "nobody has collected it"


async def test_the_whole_group_ends_with_its_leader(facts: ModelFacts, tmp_path: Path) -> None:
    class Parent(FakeEngine):
        """Its process starts one more before it serves."""

        def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
            made = super().launch(facts, plan, model_id)
            code = (
                "import subprocess, runpy, sys; from helexa.neuron.engines import lifeline; "
                "lifeline.watch = lambda: None; "  # this one does not end by itself
                "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], "
                "stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL); "
                "runpy.run_module('helexa.neuron.engines.fake', run_name='__main__')"
            )
            return replace(made, argv=(sys.executable, "-c", code))

    async with running(Parent(os.environ), facts, tmp_path, {"slots": 1}) as case:
        leader = case.process.pid
        assert leader is not None
        assert await eventually(lambda: len(group(leader)) == 2, 30.0)
        os.kill(leader, signal.SIGKILL)
        await case.reaches("recovering", 1)
        assert await emptied(leader)
        await case.reaches("ready", 2)
        second = case.process.pid
        assert second is not None
        await case.process.stop()
        assert await emptied(second)  # killed, and then gone


async def test_starting_and_stopping_leaves_nothing_behind(
    facts: ModelFacts, tmp_path: Path
) -> None:
    async def cycle() -> None:
        changes: list[EngineChange] = []
        made = process(failing(None, "exit"), facts, tmp_path, changes)
        await made.start()
        made.kill("a test")
        await made.stop()

    await cycle()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(4):
        await cycle()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert not zombies()
    assert list((tmp_path / "engines").iterdir()) == []


async def test_a_neuron_killed_outright_takes_its_engines_along(tmp_path: Path) -> None:
    for stop_first in (False, True):
        neuron, engine = orphan(tmp_path)
        if stop_first:
            os.kill(engine, signal.SIGSTOP)
        neuron.kill()
        neuron.wait()
        assert await emptied(engine)
        assert neuron.stdout is not None
        neuron.stdout.close()


def test_the_pause_doubles_up_to_its_bound() -> None:
    settings = SupervisorSettings(backoff_min_s=0.25, backoff_max_s=3)
    assert [backoff(n, settings) for n in (1, 2, 3, 4, 5, 500)] == [0.25, 0.5, 1, 2, 3, 3]


def group(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            state, _, pgrp = text[text.rindex(")") + 2 :].split()[:3]
            if pgrp == str(leader) and state != "Z":
                found.append(int(entry.name))
    return found


async def emptied(leader: int, within_s: float = 30.0) -> bool:
    """Whether nothing of a group is left within a time."""
    return await eventually(lambda: not group(leader), within_s)


async def eventually(met: Callable[[], bool], within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not met():
        if loop.time() > until:
            return False
        await asyncio.sleep(0.01)
    return True


def zombies() -> list[str]:
    mine = re.compile(rf"\) Z {os.getpid()} ")
    stats = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats.append((entry / "stat").read_text())
            except OSError:
                continue
    return [stat for stat in stats if mine.search(stat)]


NEURON = """
import asyncio, os, sys
from pathlib import Path
from helexa import spark
from helexa.neuron.engines.base import Host
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.supervisor import EngineProcess, EngineSpec
from helexa.neuron.models.inspect import inspect

async def main():
    engine = FakeEngine(os.environ)
    facts = inspect(spark.gguf_path(), spark.MODEL_ID)
    plan = engine.plan(facts, Host((), (), 24000, 20000, 2), {"slots": 1})
    spec = EngineSpec("fake", facts.model_id, lambda: engine.launch(facts, plan, facts.model_id),
                      lambda address: engine.ready(address, facts.model_id))
    process = EngineProcess(spec, Path(sys.argv[1]))
    await process.start()
    print(process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def orphan(state: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A neuron of one engine, as a process; and the engine's pid."""
    neuron = subprocess.Popen([sys.executable, "-c", NEURON, str(state)], stdout=subprocess.PIPE)
    assert neuron.stdout is not None
    return neuron, int(neuron.stdout.readline())
