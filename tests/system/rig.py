"""``helexa cortex`` over ``helexa neuron``: real processes, loopback, free ports, own folders."""

from __future__ import annotations

import json
import os
import select
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.neuron.system.conftest import SPARK, NodeProcess, end_with_tests, until

SECRET = "between-us"
CHAT = "/v1/chat/completions"
ROOT_KEY = {"authorization": "Bearer sk-root"}
KEYS = """
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
[[entitlements.keys]]
key = "sk-open"
account_id = "open"
[[entitlements.keys]]
key = "sk-meter"
account_id = "meter"
hard_cap = 1000000
[[entitlements.keys]]
key = "sk-tight"
account_id = "tight"
hard_cap = 900
[[entitlements.keys]]
key = "sk-spent"
account_id = "spent"
hard_cap = 0
"""
MODELS = """
[[models]]
id = "helexa/spark"
harness = "llamacpp"
[aliases]
"helexa/small" = "helexa/spark"
"""


@dataclass
class CortexProcess:
    """One ``helexa cortex``."""

    folder: Path
    config: str
    models: str = MODELS
    process: subprocess.Popen[bytes] | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    verify: ssl.SSLContext | bool = True
    words: tuple[str, ...] = ()

    def start(self) -> CortexProcess:
        file = self.folder / "cortex.toml"
        file.write_text(f'models_config = "models.toml"\n{self.config}')
        (self.folder / "models.toml").write_text(self.models)
        free = ["--port", "0", "--metrics-port", "0", *self.words]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "helexa.cli", "cortex", *free, "--config", str(file)],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"XDG_STATE_HOME": str(self.folder / "state")},
                preexec_fn=end_with_tests,  # noqa: PLW1509 - the tests' main thread starts it
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if readable else b""
        assert line, (self.folder / "log").read_text()
        self.ready = json.loads(line)
        return self

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        process = self.process
        assert process is not None
        if process.poll() is None:
            process.send_signal(number)
        status = process.wait(timeout_s)
        assert process.stdout is not None
        process.stdout.close()
        return status

    def rss_kb(self) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; its last line may be on its way."""
        text, _, _ = (self.folder / "log").read_text().rpartition("\n")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Revived(NodeProcess):
    """A node on the port that it had."""

    port = 0

    def start(self) -> NodeProcess:
        os.environ["NEURON_PORT"] = str(self.port)
        try:
            return super().start()
        finally:
            del os.environ["NEURON_PORT"]


@dataclass
class Stack:
    """A gateway and its node."""

    cortex: CortexProcess
    node: NodeProcess

    @property
    def url(self) -> str:
        return self.cortex.url

    def client(self, key: str = "sk-open", timeout: float = 60) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def sdk(self, key: str = "sk-open", retries: int = 0) -> openai.OpenAI:
        """The official client; close it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries)

    def ask(self, body: Any, key: str = "sk-open", **headers: str) -> httpx.Response:
        with self.client(key) as client:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(CHAT, json=body, headers=fields)

    def get(self, path: str, key: str = "sk-open") -> Any:
        with self.client(key) as client:
            return client.get(path).json()

    def admin(self, path: str, body: Any) -> httpx.Response:
        with self.client("sk-root") as client:
            return client.post(path, json=body)

    def metrics(self) -> str:
        return httpx.get(self.cortex.ready["metrics_url"], timeout=60).text

    def revive_node(self) -> None:
        """The same node comes back where it was, without its model."""
        revived = Revived(self.node.folder, self.node.settings, self.node.secret)
        revived.port = int(httpx.URL(self.node.url).port or 0)
        self.node = revived
        self.node.start()

    def settled(self, key: str) -> dict[str, Any]:
        """A key's usage once nothing is open any more."""
        used = until(lambda: (u := self.get("/v1/usage", key))["open_tokens"] == 0 and u)
        assert isinstance(used, dict)
        return used

    def warm(self) -> None:
        """Wait until the gateway knows the model as loaded."""
        until(lambda: self.get(f"/v1/models/{SPARK}").get("loaded") is True)


StartStack = Callable[..., Stack]
PATIENT = "[gateway]\ncommit_ms = 60000\n"
"""Settings for refusals of streams, which have a status of their own only before it is fixed."""


def starter(factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    """A function that starts a stack; all of them end when the iterator goes on."""
    stacks: list[Stack] = []

    def start(
        config: str = "",
        *,
        node: str = "",
        load: bool = True,
        secret: str = SECRET,
        debug: bool = False,
        models: str = MODELS,
    ) -> Stack:
        folder = factory.mktemp("stack")
        for name in ("node", "cortex"):
            (folder / name).mkdir()
        settings = f'[fleet]\nsecret = "{SECRET}"\n[grants]\nslice_tokens = 64\n{node}'
        neuron = NodeProcess(folder / "node", settings, SECRET).start()
        text = (
            f'[fleet]\nsecret = "{secret}"\n[ledger]\nslice_tokens = 64\n{config}\n{KEYS}\n'
            f'[[neurons]]\nname = "one"\nendpoint = "{neuron.url}"\n'
        )
        words = ("--log-level", "debug") if debug else ()
        cortex = CortexProcess(folder / "cortex", text, models, words=words)
        stack = Stack(cortex, neuron)
        stacks.append(stack)
        if load:
            neuron.load()
        cortex.start()
        if load:
            stack.warm()
        return stack

    yield start
    for stack in stacks:
        for process in (stack.cortex.process, stack.node.process):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(60)
            if process is not None and process.stdout is not None:
                process.stdout.close()
        stack.node.client.close()
