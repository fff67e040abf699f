"""``helexa neuron``, started for a measurement, and what is asked of its management routes."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from helexa.neuron.engines.base import Address
from kit.process import BENCHMARKS, Failed, Process, tree

SPARK = "helexa/spark"


class Node:
    """A node of its own, with its files in ``folder``.

    Args:
        settings: Further lines of its neuron.toml.
        program: Instead of ``helexa neuron``.
        environ: Further variables of its environment.
    """

    def __init__(
        self,
        folder: Path,
        settings: str = "",
        program: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        config = folder / "neuron.toml"
        config.write_text(f"port = 0\nstate_dir = '{folder}/state'\n{settings}")
        command = [*(program or (sys.executable, "-m", "helexa.cli", "neuron"))]
        command += ["--config", str(config), "--log-level", "warning"]
        self.process = Process(command, folder / "neuron.log", environ=environ, ready_line=True)
        self.url: str = self.process.ready()["url"]
        self.port = int(self.url.rpartition(":")[2])

    def ask(self, path: str, body: object = None, timeout: float = 120.0) -> tuple[int, Any]:
        """Status and JSON of one management request; a POST if there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def load(self, model: str) -> dict[str, Any]:
        """Load a model; its listing.

        Raises:
            Failed: It did not load.
        """
        status, found = self.ask("/models/load", {"model_id": model})
        if status != 200:
            raise Failed(f"{model} did not load: {found}")
        listing: dict[str, Any] = found
        return listing

    def figures(self, model: str) -> dict[str, Any]:
        """A model's entry of ``/health``; empty when it is not there."""
        models: list[dict[str, Any]] = self.ask("/health")[1]["models"]
        return next((found for found in models if found["id"] == model), {})

    async def quiet(self, model: str) -> dict[str, Any]:
        """The figures once nothing runs or waits any more, or after 20 s."""
        for _ in range(200):
            found = self.figures(model)
            if found and not found["in_flight"] and not found["queue_depth"]:
                return found
            await asyncio.sleep(0.1)
        return self.figures(model)

    def stop(self) -> None:
        """End it and everything it started."""
        self.process.stop(15.0)


class OpenNode(Node):
    """A node whose engine can be asked directly too; see ``benchmarks/open_neuron.py``."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self._where = folder / "engine.json"
        program = (sys.executable, str(BENCHMARKS / "open_neuron.py"))
        super().__init__(folder, settings, program, {"HELEXA_ENGINE": str(self._where)})

    @property
    def engine(self) -> tuple[Address, int]:
        """Where the engine of the one loaded model listens, and its process."""
        address = msgspec.json.decode(self._where.read_bytes(), type=Address)
        (pid,) = set(tree([self.process.pid])) - {self.process.pid}
        return address, pid
