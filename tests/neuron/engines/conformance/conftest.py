"""The engines that must conform, each as a real process shared by the tests of one file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.neuron.engines.candidates import CANDIDATES, Candidate
from tests.neuron.engines.driving import Case, Start, running


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=found.marks) for name, found in CANDIDATES.items()],
)
def candidate(request: pytest.FixtureRequest) -> Candidate:
    return CANDIDATES[str(request.param)]


@pytest.fixture(autouse=True)
def what_it_lacks(request: pytest.FixtureRequest, candidate: Candidate) -> None:
    """Skips a test that the engine cannot pass, with the reason."""
    reason = candidate.lacks.get(request.node.originalname)
    if reason is not None:
        pytest.skip(f"{candidate.name}: {reason}")


def begin(candidate: Candidate, folder: Path, **more: object) -> AbstractAsyncContextManager[Case]:
    wanted = {**candidate.wanted, **more}
    return running(
        candidate.make(folder, wanted),
        candidate.model(),
        folder,
        wanted,
        candidate.settings,
        busy=candidate.busy,
    )


@pytest.fixture(scope="module")
async def case(
    candidate: Candidate, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Case]:
    async with begin(candidate, tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture
def start(candidate: Candidate, tmp_path: Path) -> Start:
    """Starts a process of the test's own, for what it does not survive."""

    def anew(**wanted: object) -> AbstractAsyncContextManager[Case]:
        return begin(candidate, tmp_path, **wanted)

    return anew
