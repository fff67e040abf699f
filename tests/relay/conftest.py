"""The rig is imported by its full name: test folders are no packages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all examples of a property."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        yield running
