"""Fixtures that every room uses."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Tests marked ``anyio`` run on the loop that production runs on."""
    return "asyncio", {"use_uvloop": True}
