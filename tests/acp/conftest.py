"""The agent as a process, driven by the official SDK's client; a model server on a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)
pytest.importorskip("acp")

from tests.acp.model import Model, serving_model  # noqa: E402  # needs the path


@pytest.fixture
def model() -> Iterator[Model]:
    with serving_model() as served:
        yield served


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the SDK's client wants the standard loop


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that an editor has open."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
