"""Real nodes with real engines: a process per node, loopback, a free port, a folder of its own."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

SPARK = "helexa/spark"
Json = dict[str, Any]


def until(truth: Callable[[], object], timeout_s: float = 60.0, every_s: float = 0.01) -> Any:
    """Poll ``truth`` until it holds and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := truth()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(every_s)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_with_tests() -> None:
    """In the child: a node does not outlive a test run that was killed, and hears a hang-up also
    where the run does not (``nohup``)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass
class NodeProcess:
    """One ``helexa neuron``."""

    folder: Path
    settings: str
    secret: str | None = None
    command: list[str] = field(default_factory=lambda: [sys.executable, "-m", "helexa.cli"])
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    def start(self) -> NodeProcess:
        config = self.folder / "neuron.toml"
        config.write_text(f"port = 0\nstate_dir = '{self.folder}/state'\n{self.settings}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "neuron", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=dict(os.environ),
                preexec_fn=end_with_tests,  # noqa: PLW1509 - the tests' main thread starts nodes
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if readable else b""
        assert line, (self.folder / "log").read_text()
        ready = json.loads(line)
        assert (ready["ready"], ready["role"]) == (True, "neuron")
        self.url = ready["url"]
        headers = {"authorization": f"Bearer {self.secret}"} if self.secret else {}
        self.client.close()  # of an earlier life
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=60)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        process = self.process
        assert process is not None
        self.client.close()
        if process.poll() is None:
            process.send_signal(number)
        status = process.wait(timeout_s)
        assert process.stdout is not None
        process.stdout.close()
        return status

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, json=body, headers=fields)

    def load(self, model_id: str = SPARK, **more: object) -> Json:
        answer = self.post("/models/load", {"model_id": model_id, **more})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def status(self, model_id: str = SPARK) -> str | None:
        return next((m["status"] for m in self.get("/models") if m["id"] == model_id), None)

    def figures(self, model_id: str = SPARK) -> Json:
        return next((m for m in self.get("/health")["models"] if m["id"] == model_id), {})

    def in_flight(self, model_id: str = SPARK) -> int:
        return int(self.figures(model_id).get("in_flight", 0))

    def engines(self) -> list[int]:
        """Processes of engines that belong to this node's folder."""
        texts = [p.read_text() for p in (self.folder / "state" / "engines").glob("*.json")]
        return [json.loads(text)["pid"] for text in texts if text.endswith("}")]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def rss_kb(self) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])


def chat(text: str = "Repeat: one two", *, model: str = SPARK, **more: Any) -> Json:
    """A chat request; ``ignore_eos`` makes the answer as long as ``max_tokens``."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def endless(tokens: int = 4000, **more: Any) -> Json:
    return chat("Count.", max_tokens=tokens, ignore_eos=True, **more)


def events(lines: Iterator[str]) -> Iterator[Json]:
    """The JSON of each ``data:`` line, up to ``[DONE]``."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])


def raw_request(
    url: str, body: Json, *, rcvbuf: int | None = None, **headers: str
) -> socket.socket:
    """A chat request on a bare socket, whose answer nobody has read yet."""
    lines = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
    payload = json.dumps(body).encode()
    sock = socket.socket()
    OPENED.append(sock)
    if rcvbuf is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    sock.connect((httpx.URL(url).host, httpx.URL(url).port))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
    sock.sendall(head % (lines.encode(), len(payload)) + payload)
    return sock


class Helpers:
    """What tests share, without importing a conftest."""

    SPARK = SPARK
    until = staticmethod(until)
    alive = staticmethod(alive)
    chat = staticmethod(chat)
    endless = staticmethod(endless)
    events = staticmethod(events)
    raw_request = staticmethod(raw_request)


OPENED: list[socket.socket] = []


def close_all() -> None:
    """Close what ``raw_request`` has opened."""
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def h() -> Iterator[type[Helpers]]:
    yield Helpers
    close_all()


StartNode = Callable[..., NodeProcess]


@pytest.fixture
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """Start nodes that end with the test."""
    yield from _starter(tmp_path_factory)


@pytest.fixture(scope="module")
def make_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """Start nodes that end with the module."""
    yield from _starter(tmp_path_factory)


@pytest.fixture(scope="module")
def node(make_node: StartNode) -> NodeProcess:
    """One node with the built-in model, shared by the module."""
    shared = make_node(SHARED)
    shared.load()
    return shared


SHARED = "[grants]\nslice_tokens = 64\nwait_ms = 250\n"


def _starter(factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    started: list[NodeProcess] = []

    def start(
        settings: str = "",
        *,
        secret: str | None = None,
        folder: Path | None = None,
        command: list[str] | None = None,
    ) -> NodeProcess:
        if secret:
            settings += f'\n[fleet]\nsecret = "{secret}"\n'
        node = NodeProcess(folder or factory.mktemp("node"), settings, secret)
        if command is not None:
            node.command = command
        started.append(node)
        return node.start()

    yield start
    for node in started:
        if node.process is not None:
            node.stop(signal.SIGKILL)
