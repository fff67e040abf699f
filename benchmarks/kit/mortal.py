"""A gateway and a node that are killed and come back where they were, and what their books say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helexa.cortex.ledger.database import connect
from helexa.cortex.ledger.verify import Check, verify
from kit.process import Failed, Process, free_port

SPARK = "helexa/spark"
ROOT_KEY = "sk-root"
SLICE = 64
START_S = 120.0
"""What a process may take: a busy machine is no fault of theirs."""

NEURON = """
port = {port}
state_dir = "{folder}/state"
[[default_models]]
model_id = "helexa/spark"
[grants]
slice_tokens = {slice}
[admission]
max_queue_depth = 4000
max_wait_secs = 120
reserve_seats = 0
"""
CORTEX = """
models_config = "models.toml"
[gateway]
listen = "127.0.0.1:{port}"
metrics_listen = "127.0.0.1:{metrics}"
drain_secs = 2
[ledger]
url = "sqlite://{folder}/ledger.db"
slice_tokens = {slice}
lease_secs = {lease}
[[neurons]]
name = "one"
endpoint = "http://127.0.0.1:{neuron}"
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
"""


class Server:
    """A gateway or a node that is started again after its death, at the same address."""

    def __init__(self, role: str, config: Path) -> None:
        self.command = [sys.executable, "-m", "helexa.cli", role, "--config", str(config)]
        self.command += ["--log-level", "warning"]
        self.log = config.with_suffix(".log")
        self.process = self._started()

    def _started(self) -> Process:
        process = Process(self.command, self.log, ready_line=True)
        process.ready(START_S)
        return process

    async def kill(self) -> None:
        """``kill -9``, and a new life."""
        os.kill(self.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.stop)
        self.process = await asyncio.to_thread(self._started)


@dataclass
class Stack:
    """One gateway, one node.

    Args:
        folder: For their files.
        caps: The keys, each an account of its own, and what each may spend (tokens).
        lease_s: How long the ledger waits for a node that stays away.
    """

    folder: Path
    caps: dict[str, int]
    lease_s: float
    ports: tuple[int, int, int] = field(
        default_factory=lambda: (free_port(), free_port(), free_port())
    )

    def start(self) -> None:
        """Start both; the model may load for a moment longer, see ``warm``."""
        gateway, metrics, neuron = self.ports
        text = NEURON.format(port=neuron, folder=self.folder, slice=SLICE)
        (self.folder / "neuron.toml").write_text(text)
        text = CORTEX.format(
            port=gateway, metrics=metrics, neuron=neuron, folder=self.folder, slice=SLICE,
            lease=int(self.lease_s),
        )  # fmt: skip
        for key, cap in self.caps.items():
            text += f'[[entitlements.keys]]\nkey = "{key}"\naccount_id = "{key}"\n'
            text += f"hard_cap = {cap}\n"
        (self.folder / "cortex.toml").write_text(text)
        (self.folder / "models.toml").write_text(
            f'[[models]]\nid = "{SPARK}"\nharness = "llamacpp"\n'
        )
        self.node = Server("neuron", self.folder / "neuron.toml")
        self.gateway = Server("cortex", self.folder / "cortex.toml")

    def get(self, path: str, key: str = ROOT_KEY) -> Any:
        """The JSON of a route of the gateway."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[0]}{path}")
        request.add_header("authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def metric(self, name: str) -> float:
        """A metric of the gateway, summed over its labels."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports[1]}/metrics", timeout=60
        ) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def kill_engine(self) -> None:
        """``kill -9`` of the engine, if one runs."""
        pid = engine_pid(self.folder / "state")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def billed(self) -> dict[str, int]:
        """Tokens by request id, over all attempts of it."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as db:
            return dict(
                db.execute(
                    "SELECT request_id, SUM(prompt + completion) FROM requests "
                    "WHERE state <> 'open' GROUP BY request_id"
                ).fetchall()
            )

    def unproven(self) -> list[Check]:
        """What ``helexa ledger verify`` finds wrong."""
        with contextlib.closing(connect(f"sqlite://{self.folder}/ledger.db")) as db:
            return [check for check in verify(db).checks if not check.ok]

    async def warm(self) -> None:
        """Wait until the model is loaded.

        Raises:
            Failed: It was not within two minutes.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, KeyError):
                if (await asyncio.to_thread(self.get, f"/v1/models/{SPARK}"))["loaded"]:
                    return
            await asyncio.sleep(0.2)
        raise Failed("the model did not load")

    def held(self, keys: Sequence[str]) -> dict[str, int]:
        """Keys of which something is held, and how much; dead lives that are not settled."""
        try:
            used = {key: self.get("/v1/usage", key)["open_tokens"] for key in keys}
        except (OSError, urllib.error.HTTPError):
            return {"gateway": -1}
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as db:
            ((lives,),) = db.execute("SELECT COUNT(*) FROM lives WHERE state = 'live'")
            ((rows,),) = db.execute("SELECT COUNT(*) FROM requests WHERE state = 'open'")
        held = {key: tokens for key, tokens in used.items() if tokens}
        return held | ({"lives": lives} if lives > 1 else {}) | ({"rows": rows} if rows else {})

    def evidence(self) -> list[str]:
        """What gateway, node and ledger say of what is held, for whoever looks for the reason."""
        lines = [f"gateway: {self.get('/admin/grants')['grants']}"]
        address = f"http://127.0.0.1:{self.ports[2]}/requests"
        with urllib.request.urlopen(address, timeout=60) as node:
            lines.append(f"node: {node.read()[:2000]!r}")
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as db:
            for table in ("requests", "lives"):
                state = "open" if table == "requests" else "live"
                found = db.execute(f"SELECT * FROM {table} WHERE state = ?", (state,)).fetchall()
                lines.append(f"{table}: {found}")
        return lines

    def stop(self) -> None:
        """End what was started."""
        for name in ("gateway", "node"):
            server = getattr(self, name, None)
            if server is not None:
                server.process.stop(15.0)


def engine_pid(state: Path, model: str = SPARK) -> int | None:
    """The process of a model's engine, if it has one; ``state`` is the node's folder of state."""
    for path in (state / "engines").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            if found["model"] == model:
                return int(found["pid"])
    return None
