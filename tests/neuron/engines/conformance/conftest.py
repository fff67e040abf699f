"""The engines that must conform, each as a real process shared by the tests of one file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.neuron.engines.driving import Case, Start, running

from helexa import spark
from helexa.neuron.engines.base import Engine
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect

WANTED: dict[str, object] = {"slots": 4, "extra": {"unified": True}}


def make_engine(name: str) -> Engine:
    if name == "fake":
        return FakeEngine(os.environ)
    return LlamaCpp(os.environ)


@pytest.fixture(scope="session")
def facts() -> ModelFacts:
    return inspect(spark.gguf_path(), spark.MODEL_ID)


@pytest.fixture(scope="module", params=["llamacpp", "fake"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def case(
    engine_name: str, facts: ModelFacts, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Case]:
    state = tmp_path_factory.mktemp("state")
    async with running(make_engine(engine_name), facts, state, WANTED) as found:
        yield found


@pytest.fixture
def start(engine_name: str, facts: ModelFacts, tmp_path: Path) -> Start:
    """Starts a process of the test's own, for what it does not survive."""

    def begin(**wanted: object) -> AbstractAsyncContextManager[Case]:
        return running(make_engine(engine_name), facts, tmp_path, {**WANTED, **wanted})

    return begin
