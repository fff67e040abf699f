"""The settings of a plan, seen from outside at a running llama.cpp."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.driving import Case, as_json, running, text_of, user

from helexa import spark
from helexa.core.errors import UnsupportedOperation
from helexa.neuron.engines.http import ask
from helexa.neuron.engines.llamacpp.build import inspect_build
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def spark_facts() -> ModelFacts:
    return inspect(spark.gguf_path(), spark.MODEL_ID)


async def slots(case: Case) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask(case.address, "GET", "/slots")).json()
    return found


async def test_slots_of_their_own_have_the_planned_context(
    spark_facts: ModelFacts, tmp_path: Path
) -> None:
    wanted: dict[str, object] = {"slots": 3, "ctx": 1024, "extra": {"unified": False}}
    async with running(LlamaCpp(os.environ), spark_facts, tmp_path, wanted) as case:
        assert [slot["n_ctx"] for slot in await slots(case)] == [1024] * 3


async def test_sharing_slots_have_at_least_the_planned_context(
    spark_facts: ModelFacts, tmp_path: Path
) -> None:
    wanted: dict[str, object] = {"slots": 2, "ctx": 2048, "kv_type": "q8_0", "cache_ram_mb": 8}
    async with running(LlamaCpp(os.environ), spark_facts, tmp_path, wanted) as case:
        assert all(slot["n_ctx"] >= 2048 for slot in await slots(case))
        assert text_of(as_json((await case.say("Repeat: house", max_tokens=3)).clean))
        assert case.process.resident_mb() < 250


async def test_a_reranker_ranks_and_does_nothing_else(
    spark_facts: ModelFacts, tmp_path: Path
) -> None:
    async with running(LlamaCpp(os.environ), spark_facts, tmp_path, {"rerank": True}) as case:
        asked = {"query": "a", "documents": ["b", "c"], "return_documents": True}
        exchange = await case.send(asked, route="rerank")
        await exchange.finish()
        results = json.loads(exchange.request.cleaner.whole())["results"]
        assert sorted((r["index"], r["document"]["text"]) for r in results) == [(0, "b"), (1, "c")]
        assert all(isinstance(r["relevance_score"], float) for r in results)
        assert exchange.request.cleaner.meter.prompt > 0
        with pytest.raises(UnsupportedOperation):
            case.clean("chat", user("hi"))


async def test_the_engine_has_no_page_no_stranger_and_no_other_address(
    spark_facts: ModelFacts, tmp_path: Path
) -> None:
    async with running(LlamaCpp(os.environ), spark_facts, tmp_path, {"slots": 1}) as case:
        assert (await ask(case.address, "GET", "/")).status == 404
        stranger = msgspec.structs.replace(case.address, api_key="")
        for path in ("/slots", "/metrics", "/props"):
            assert (await ask(stranger, "GET", path)).status == 401
        assert case.process.pid is not None
        assert case.address.uds is not None
        assert listening(case.process.pid) == [case.address.uds.replace("\0", "@")]


def listening(pid: int) -> list[str]:
    """Every socket that a process listens on, as the kernel writes it."""
    process = Path(f"/proc/{pid}")
    mine = {link.readlink().name.strip("socket:[]") for link in (process / "fd").iterdir()}
    found = []
    for line in (process / "net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[6] in mine and fields[3] == "00010000":
            found.append(fields[7])
    for family in ("tcp", "tcp6"):
        for line in (process / "net" / family).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in mine and fields[3] == "0A":
                found.append(fields[1])
    return found


def test_the_build_is_asked_in_a_process_of_its_own() -> None:
    build = inspect_build(os.environ)
    assert "CPU" in build.devices
    assert not build.gpu
    assert inspect_build({"PATH": "/bin", "PYTHONHOME": "/nonexistent"}).devices == ()
