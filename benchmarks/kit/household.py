"""``helexa up``, started for a measurement."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from kit.process import Process, tree


class Household(NamedTuple):
    """Gateway, node and engine on this machine."""

    process: Process
    port: int
    node_url: str = ""

    def pids(self) -> dict[str, int]:
        """Process ids of ``cortex``, ``neuron`` and ``engine``, told by their command lines."""
        marks = {"cortex": " cortex ", "neuron": " neuron ", "engine": " --engine "}
        found: dict[str, int] = {}
        for pid in tree([self.process.pid]):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            found |= {role: pid for role, mark in marks.items() if mark in line}
        return found


def start_household(scratch: Path) -> Household:
    """Start it on free ports, with its files in ``scratch``."""
    command = [sys.executable, "-m", "helexa.cli", "up", "--log-level", "warning"]
    for option in ("--port", "--neuron-port", "--metrics-port"):
        command += [option, "0"]
    command += ["--state-dir", str(scratch / "state")]
    process = Process(command, scratch / "up.log", ready_line=True)
    ready = process.ready(60)
    return Household(process, int(ready["url"].rpartition(":")[2]), ready["neuron_url"])
