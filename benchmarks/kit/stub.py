"""The stub nodes and the load generator, driven from a benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kit.process import BENCHMARKS, LOAD_CORE, Failed, Process, pinned

MODEL = "test-model"


class Stub:
    """``stub_node.py``, running on the load generator's core."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, str(BENCHMARKS / "stub_node.py"), *options]
        self.process = Process(command, folder / "stub.log", core=LOAD_CORE, ready_line=True)
        self.ports: list[int] = self.process.ready()["ports"]

    @property
    def urls(self) -> list[str]:
        """Base URLs of the nodes."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def play(self, **settings: float) -> None:
        """Change what the nodes say: ``tokens``, ``gap_ms``, ``prefill_ms``, ``stamp``."""
        url = f"{self.urls[0]}/stub?{urlencode(settings)}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5):
            pass

    def stop(self) -> None:
        """End it."""
        self.process.stop(1.0)


def load(port: int, pids: list[int], keys: list[str], **options: object) -> dict[str, Any]:
    """One run of ``load.py``; options by their names, True for flags.

    Raises:
        Failed: The load generator itself broke.
    """
    command = [sys.executable, str(BENCHMARKS / "load.py"), f"--port={port}"]
    command += [f"--pids={','.join(map(str, pids))}", *(f"--key={key}" for key in keys)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        command += [flag] if value is True else [] if value is False else [f"{flag}={value}"]
    run = subprocess.run(
        pinned(LOAD_CORE, command), capture_output=True, text=True, check=False, timeout=300
    )
    if run.returncode:
        raise Failed(f"the load generator failed: {run.stderr[-1500:]}")
    result: dict[str, Any] = json.loads(run.stdout)
    return result
