"""A whole gateway in this process, between raw clients and nodes that answer as they are told."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cortex.fake_node import Chat, FakeNode, Turn, fake_node, model
from tests.relay.rig import Got, Raw, client, until

from helexa.core.logging import LogLine
from helexa.cortex import build
from helexa.cortex.settings import load_settings

CHAT = "/v1/chat/completions"
MODEL = "org/m"
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
DONE = b"data: [DONE]\n\n"
KEYS = """
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
key_id = "acme-one"
"""


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def usage(prompt: int = 7, completion: int = 2) -> bytes:
    figures = {"prompt_tokens": prompt, "completion_tokens": completion}
    timings = {"prompt_n": prompt, "cache_n": 0, "prompt_ms": 3.5, "predicted_n": completion,
               "predicted_ms": 10.0}  # fmt: skip
    return event({"choices": [], "usage": figures, "timings": timings})


WHOLE = (delta("Hello"), delta(" you"), FINISH, usage(), DONE)
PLAIN = {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}}], "usage": USAGE}


async def answers(turn: Turn) -> None:
    """What a healthy node does."""
    if turn.body.get("stream"):
        turn.stream(*WHOLE, lines="x-helexa-queue-ms: 12\r\nserver-timing: engine;dur=3\r\n")
    else:
        turn.plain(PLAIN, lines="x-helexa-queue-ms: 12\r\n")


PATIENT = "[gateway]\ncommit_ms = 60000\n"
"""Settings for what is to be refused before the status is fixed, however slow the machine."""


def refuses(status: int, code: str, **more: Any) -> Chat:
    """A node that answers every request with one refusal."""

    async def chat(turn: Turn) -> None:
        turn.plain({"error": {"message": f"No: {code}.", "code": code, **more}}, status)

    return chat


async def held(turn: Turn) -> None:
    """A node that computes until the gateway goes away, and says so."""
    turn.open()
    turn.send(delta("Hel"))
    await turn.left()
    turn.ended("cancelled", prompt=7, output=1)


async def resets(turn: Turn) -> None:
    turn.reset()


class Log:
    """Stands in for the gateway's logger and keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.said: list[tuple[str, dict[str, Any]]] = []

    def stamp(self) -> str:
        return ""

    def batch(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines

    def __getattr__(self, level: str) -> Callable[..., None]:
        def say(event: str, **fields: Any) -> None:
            self.said.append((f"{level}: {event}", fields))

        return say


class Gateway:
    """The gateway and its address; ``ask`` it."""

    def __init__(self, whole: build.Gateway, log: Log) -> None:
        self.parts, self.rooms, self.front = whole.parts, whole.rooms, whole.front
        self.log = log
        self.port = whole.front.listener.port

    async def ask(self, body: Any = None, *, path: str = CHAT, **headers: str) -> Got:
        """One request on a connection of its own."""
        async with client(self.port) as raw:
            raw.send(request(body, path=path, **headers))
            return await raw.answer()

    async def get(self, path: str, **headers: str) -> Any:
        async with client(self.port) as raw:
            lines = _lines(headers)
            raw.send(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}\r\n".encode())
            return json.loads((await raw.answer()).body)

    async def settled(self) -> None:
        """Wait until nothing is held for anybody."""
        rooms, app = self.rooms, self.front.app
        await until(lambda: not app.running)
        app.flush()
        await until(lambda: not rooms.settler.waiting)
        assert not rooms.ledger.snapshot().grants
        assert not rooms.placer.leases.open()

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the exposition; 0 when there is none."""
        registry = self.parts.metrics.registry
        registry.update()
        for line in "".join(registry.lines()).splitlines():
            head, _, value = line.rpartition(" ")
            bare, _, given = head.partition("{")
            if bare == name and all(f'{k}="{v}"' in given for k, v in labels.items()):
                return float(value)
        return 0.0


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())


def request(body: Any = None, *, path: str = CHAT, **headers: str) -> bytes:
    """The bytes of a chat request; ``body`` may be bytes already."""
    data = (
        body if isinstance(body, bytes) else json.dumps({"model": MODEL, **(body or {})}).encode()
    )
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n"
    return f"{head}{_lines(headers)}\r\n".encode() + data


@asynccontextmanager
async def gateway(*nodes: FakeNode, config: str = "", models: str = "") -> AsyncIterator[Gateway]:
    """A gateway over these nodes that hears their events; ends with nothing left over."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cortex.toml"
        (Path(folder) / "models.toml").write_text(models)
        tables = "".join(
            f'[[neurons]]\nname = "n{i}"\nendpoint = "{node.url}"\n' for i, node in enumerate(nodes)
        )
        file.write_text(f'models_config = "models.toml"\n{config}\n{tables}')
        environ = {"CORTEX_LEDGER__URL": f"sqlite://{folder}/ledger.db"}
        if "commit_ms" not in config:  # a machine that is held up has said nothing of its own
            environ["CORTEX_GATEWAY__COMMIT_MS"] = "60000"
        whole = build.assemble(load_settings(file, {}, environ).value, loop)
        rooms, front = whole.rooms, whole.front
        log = Log()
        front.app._desk.log = log  # type: ignore[assignment]
        await front.listener.start("127.0.0.1", 0)
        tasks = [
            asyncio.create_task(rooms.fleet.run()),
            asyncio.create_task(rooms.residency.run()),
            asyncio.create_task(rooms.settler.run(0.05)),
            asyncio.create_task(rooms.kept.run()),
        ]
        try:
            await until(lambda: all(n.events and n.discovery for n in rooms.fleet.snapshot().nodes))
            given = Gateway(whole, log)
            yield given
            await given.settled()
        finally:
            await front.app.cut()
            await front.listener.drain(1.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await rooms.kept.close(clean=True)
            rooms.links.close()


@asynccontextmanager
async def fleet(
    *chats: Chat, config: str = "", models: str = ""
) -> AsyncIterator[tuple[Gateway, list[FakeNode]]]:
    """A gateway over one node per ``chat``, each with the model loaded."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(fake_node(model(MODEL))) for _ in chats]
        for node, chat in zip(nodes, chats, strict=True):
            node.chat = chat
            node.loads = {MODEL: {"max_in_flight": 64}}
        yield await stack.enter_async_context(gateway(*nodes, config=config, models=models)), nodes


def error_of(got: Got) -> dict[str, Any]:
    """The error of an OpenAI envelope."""
    found: dict[str, Any] = json.loads(got.body)["error"]
    return found


def events_of(body: bytes) -> list[bytes]:
    """A stream's events and comments."""
    return [e + b"\n\n" for e in body.split(b"\n\n") if e]


async def next_event(raw: Raw) -> bytes:
    """The next chunk of a streamed answer; keep-alives and events are chunks of their own."""
    async with asyncio.timeout(30):
        return await raw.chunk()
