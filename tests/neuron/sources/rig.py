"""A hub on loopback, a cache of its own, and the source between the two."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from helexa.core.logging import get_logger
from helexa.neuron.sources.fake.hub import FakeHub
from helexa.neuron.sources.hub.api import HubApi
from helexa.neuron.sources.hub.cache import Cache
from helexa.neuron.sources.hub.hub import Hub, Patience
from helexa.neuron.sources.listing import Listing, Progress
from helexa.neuron.sources.sources import Sources

WEIGHTS = bytes(range(256)) * 12_000
"""Three megabytes."""


@dataclass
class Stand:
    """A hub and a node's side of it."""

    hub: FakeHub
    cache: Path
    variables: dict[str, str] = field(default_factory=dict)
    seen: list[Progress] = field(default_factory=list)

    def source(self, *, offline: bool = False, endpoint: str | None = None) -> Hub:
        """A hub source, as a fresh process would have it."""
        api = HubApi(
            "hf", endpoint or self.hub.url, "HF_TOKEN", lambda: self.variables.get("HF_TOKEN")
        )
        patience = Patience(idle_s=20.0, attempts=3, pause_s=0.01)
        return Hub(
            api,
            Cache(self.cache),
            get_logger(),
            clock=time.monotonic,
            offline=offline,
            patience=patience,
        )

    def sources(self) -> Sources:
        """The same behind model ids."""
        return Sources({"hf": self.source()}, "hf")

    def describe(self, name: str, quant: str | None = None) -> Listing:
        """What a fresh process finds."""
        return asyncio.run(self.sources().describe(name, quant=quant))

    def fetch(self, name: str, quant: str | None = None) -> Path:
        """Describe and bring."""
        self.seen.clear()
        return asyncio.run(self.sources().locate(name, quant=quant, report=self.seen.append))

    def write(self, name: str, content: bytes = WEIGHTS) -> Path:
        """A file ``org/name/file`` of the hub."""
        path = self.hub.repositories.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path
