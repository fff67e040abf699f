"""A hub on loopback, and a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.neuron.sources.rig import Stand

from helexa.neuron.sources.fake.hub import FakeHub


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    root = tmp_path / "hub"
    root.mkdir()
    hub = FakeHub(root).start()
    try:
        yield Stand(hub, tmp_path / "cache")
    finally:
        hub.stop()
