"""Gateway and node as processes of their own, with the built-in model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
pytest.importorskip("xllamacpp")

from tests.neuron.system.conftest import close_all  # noqa: E402
from tests.system.rig import Stack, StartStack, starter  # noqa: E402  # needs the path


@pytest.fixture(autouse=True)
def sockets_closed() -> Iterator[None]:
    """Raw requests end with the test."""
    yield
    close_all()


@pytest.fixture(scope="module")
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    """Start stacks that end with the module."""
    yield from starter(tmp_path_factory)


@pytest.fixture
def start_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    """Start stacks that end with the test."""
    yield from starter(tmp_path_factory)


@pytest.fixture(scope="module")
def stack(make_stack: StartStack) -> Stack:
    """One gateway over one node with the model loaded, shared by the module."""
    return make_stack()
