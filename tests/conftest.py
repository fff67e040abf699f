"""Fixtures that every room uses."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Tests marked ``anyio`` run on the loop that production runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Python's logging is led back to where it was after a test that configures ours."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
