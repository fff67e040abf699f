"""However a vLLM of several processes ends, nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.neuron.engines.candidates import installed_vllm

from helexa.neuron.engines.orphans import start_time

pytestmark = [pytest.mark.anyio, pytest.mark.engines, pytest.mark.timeout(420)]

OWNER = Path(__file__).with_name("owner.py")
SHARED_MEMORY = Path("/dev/shm")
SOON_S = 30.0


@asynccontextmanager
async def owned(state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program of ``owner.py``, killed afterwards if it still runs."""
    if installed_vllm() is None:
        pytest.skip("vLLM is not installed; run: make vllm-env")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(OWNER), str(state), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(owner: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next life that is ready."""
    assert owner.stdout is not None
    async with asyncio.timeout(300):
        found: dict[str, Any] = json.loads(await owner.stdout.readline())
    return found


def left_of(life: dict[str, Any]) -> list[str]:
    """What can still be found of a life: processes, its folder, its shared memory."""
    folder = Path(life["uds"]).parent
    names = [*SHARED_MEMORY.glob(f"*helexa-{life['leader']}-*"), *map(Path, life["noted"])]
    running = [f"process {pid}" for pid in life["pids"] if start_time(pid) is not None]
    return [*running, *(str(path) for path in [folder, *names] if path.exists())]


async def gone(life: dict[str, Any]) -> list[str]:
    """What is left of a life after a while; empty as soon as nothing is."""
    async with asyncio.timeout(SOON_S):
        while left_of(life):
            await asyncio.sleep(0.05)
    return left_of(life)


def noted(life: dict[str, Any]) -> dict[str, Any]:
    """A life with the shared memory that its launcher has written down."""
    lines = (Path(life["uds"]).parent / "shared-memory").read_text().splitlines()
    return {**life, "noted": lines}


async def test_nothing_is_left_of_a_vllm_whose_node_was_killed(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        life = noted(await ready(owner))
        assert len(life["pids"]) >= 4  # server, scheduler, two workers
        assert len(left_of(life)) > len(life["pids"])
        owner.kill()
        await owner.wait()
        assert not await gone(life)
