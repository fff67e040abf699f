"""The engines that must conform, each as a real process shared by the tests of one file; one that
starts slowly, by all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.neuron.engines.candidates import CANDIDATES, Candidate
from tests.neuron.engines.driving import Case, Start, running


@pytest.fixture(
    scope="session",
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
    engine = candidate.make(folder, wanted)
    if engine is None:
        pytest.skip(candidate.missing)
    return running(
        engine,
        candidate.model(),
        folder,
        wanted,
        candidate.settings,
        busy=candidate.busy,
    )


@dataclass
class Shared:
    """The one process of an engine that starts slowly."""

    candidate: Candidate
    folder: Path
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    case: Case | None = None

    async def ready(self) -> Case:
        """The process, started again if a test has ended it."""
        if self.case is None or self.case.process.state != "ready":
            await self.stack.aclose()
            self.case = await self.stack.enter_async_context(begin(self.candidate, self.folder))
        return self.case

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Case]:
        """The process for a test that may end it; its changes begin anew."""
        case = await self.ready()
        case.changes.clear()
        yield case


@pytest.fixture(scope="session")
async def shared(
    candidate: Candidate, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shared]:
    found = Shared(candidate, tmp_path_factory.mktemp("shared"))
    async with found.stack:
        yield found


@pytest.fixture(scope="module")
async def of_this_file(
    candidate: Candidate, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Case | None]:
    """The process of this file's tests; None where the whole suite has one."""
    if candidate.shared:
        yield None
        return
    async with begin(candidate, tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture
async def case(of_this_file: Case | None, shared: Shared) -> Case:
    return of_this_file or await shared.ready()


@pytest.fixture
def start(candidate: Candidate, shared: Shared, tmp_path: Path) -> Start:
    """Starts a process of the test's own, for what it does not survive."""

    def anew(**wanted: object) -> AbstractAsyncContextManager[Case]:
        if candidate.shared and not wanted:
            return shared.lent()
        return begin(candidate, tmp_path, **wanted)

    return anew
