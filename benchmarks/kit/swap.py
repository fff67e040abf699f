"""A gateway over one real node that has room for one of two models, with loads that take time."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

from helexa.spark import gguf_path
from kit.node import Node
from kit.process import BENCHMARKS, Process

ROOM_MB, HELD_MB = 100, 33
"""Host memory that the node may fill, and what each engine holds beside its own program."""
SLOTS = 4


class Swap:
    """Node and gateway; ``models`` are two files that do not fit together.

    Args:
        load_s: What a load takes.
        residency: Further lines of ``[residency]``.
    """

    def __init__(self, folder: Path, load_s: float, residency: str = "") -> None:
        self.models = [str(folder / f"{name}.gguf") for name in ("a", "b")]
        for model in self.models:
            shutil.copy(gguf_path(), model)
        knobs = json.dumps({"start_s": load_s, "decode_tok_s": 100.0, "hold_mb": HELD_MB})
        settings = (
            f"[engines.llamacpp]\nslots = {SLOTS}\nctx = 1024\n"
            f"[memory]\nhost_mb = {ROOM_MB}\n[prefix_cache]\nbudget_mb = 0\n"
            "[admission]\nreserve_seats = 0\nmax_queue_depth = 64\n"
        )
        slow = (sys.executable, str(BENCHMARKS / "slow_neuron.py"), knobs)
        self.node = Node(folder / "node", settings, program=slow)
        (folder / "models.toml").write_text(
            "".join(f'[[models]]\nid = "{m}"\nharness = "llamacpp"\n' for m in self.models)
        )
        config = folder / "cortex.toml"
        config.write_text(
            'models_config = "models.toml"\n[gateway]\nlisten = "127.0.0.1:0"\n'
            f'metrics_listen = "127.0.0.1:0"\n[residency]\n{residency}\n'
            f'[[neurons]]\nname = "one"\nendpoint = "{self.node.url}"\n'
        )
        command = [sys.executable, "-m", "helexa.cli", "cortex", f"--config={config}"]
        self.gateway = Process(
            command,
            folder / "cortex.log",
            environ={"XDG_STATE_HOME": str(folder / "state")},
            ready_line=True,
        )
        self.url: str = self.gateway.ready()["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.log = folder / "cortex.log"

    async def ready(self) -> None:
        """Wait until the gateway knows the node."""
        async with asyncio.timeout(30):
            while not any(m["feasible_on"] for m in self.get("/v1/models")["data"]):
                await asyncio.sleep(0.1)

    def get(self, path: str) -> Any:
        """One management answer of the gateway."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def events(self, said: str) -> list[dict[str, Any]]:
        """The gateway's log lines of one kind."""
        lines = self.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("event") == said]

    def stop(self) -> None:
        """End both."""
        self.gateway.stop()
        self.node.stop()
