"""A gateway over several real nodes whose engines take time and no processor."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from kit.node import SPARK, Node
from kit.process import BENCHMARKS, Process, tree

SLOTS = 8
KEY = "sk-fleet"
"""A key with a cap, so that every request has a grant to give back."""
SETTINGS = """
[engines.llamacpp]
slots = {slots}
ctx = 4096
[prefix_cache]
budget_mb = 0
[admission]
reserve_seats = 0
max_queue_depth = 256
"""


class SlowNode(Node):
    """``benchmarks/slow_neuron.py`` with the built-in model loaded."""

    def __init__(self, folder: Path, prefill: float = 4000.0, decode: float = 100.0) -> None:
        knobs = json.dumps({"prefill_tok_s": prefill, "decode_tok_s": decode})
        settings = SETTINGS.format(slots=SLOTS)
        slow = (sys.executable, str(BENCHMARKS / "slow_neuron.py"), knobs)
        super().__init__(folder, settings, program=slow)
        self.load(SPARK)

    def pids(self) -> list[int]:
        """The node's process and its engines'."""
        return tree([self.process.pid])


class SlowFleet:
    """Nodes and the gateway over them.

    Args:
        count: Nodes, named ``node-0`` and so on.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.nodes: dict[str, SlowNode] = {}
        self.gateway: Process | None = None
        try:
            self._start(folder, count)
        except BaseException:  # also SIGTERM: what has been started ends with us
            self.stop()
            raise

    def _start(self, folder: Path, count: int) -> None:
        for index in range(count):
            self.start_node(f"node-{index}")
        lines = ['models_config = "models.toml"', "[gateway]", 'listen = "127.0.0.1:0"']
        lines += ['metrics_listen = "127.0.0.1:0"']
        for name, node in self.nodes.items():
            lines += ["[[neurons]]", f'name = "{name}"', f'endpoint = "{node.url}"']
        lines += ["[[entitlements.keys]]", f'key = "{KEY}"', 'account_id = "fleet"']
        lines += ["hard_cap = 1000000000"]
        (folder / "models.toml").write_text(f'[[models]]\nid = "{SPARK}"\nharness = "llamacpp"\n')
        (folder / "cortex.toml").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "helexa.cli", "cortex"]
        self.gateway = gateway = Process(
            [*command, f"--config={folder}/cortex.toml"],
            folder / "cortex.log",
            environ={"XDG_STATE_HOME": str(folder / "state")},
            ready_line=True,
        )
        self.url: str = gateway.ready()["url"]
        self.port = int(self.url.rpartition(":")[2])

    def start_node(self, name: str) -> SlowNode:
        """One more node, which the gateway does not know yet."""
        node = self.nodes[name] = SlowNode(self.folder / name)
        return node

    def get(self, path: str, body: object = None) -> Any:
        """One management answer of the gateway."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def serving(self) -> set[str]:
        """Nodes that the gateway knows to have the model."""
        models: list[dict[str, Any]] = self.get("/v1/models")["data"]
        places = [place for model in models for place in model["locations"]]
        return {place["node"] for place in places if place["status"] == "loaded"}

    def stop(self) -> None:
        """End everything."""
        if self.gateway is not None:
            self.gateway.stop()
        for node in self.nodes.values():
            node.stop()
