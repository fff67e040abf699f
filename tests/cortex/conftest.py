"""The fake node as a fixture: test folders are no packages, so it is loaded by its path."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]


@pytest.fixture(scope="session")
def fake_node_module() -> Any:
    """``fake_node.py``: ``fake_node(*models)`` and ``model(name, status, **more)``."""
    spec = importlib.util.spec_from_file_location(
        "helexa_fake_node", Path(__file__).with_name("fake_node.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_node(fake_node_module: Any) -> Starter:
    """Starts a fake node for the length of an ``async with``."""
    starter: Starter = fake_node_module.fake_node
    return starter


@pytest.fixture
def model(fake_node_module: Any) -> Callable[..., dict[str, Any]]:
    """Makes an entry of ``/models``."""
    maker: Callable[..., dict[str, Any]] = fake_node_module.model
    return maker
