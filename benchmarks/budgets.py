"""Hard budgets under fire: parallel requests of keys near their caps, while everything is killed.

Every round asks 1,000 requests at once with 50 keys that have tokens for a part of them. Some
clients leave in the middle, some read slowly; the engine, the node and the gateway are ended with
``kill -9`` at random moments and start again where they were. Afterwards no key may have spent a
token beyond its cap, every answer's own count must be what was billed, the gateway's sums must be
those of the nodes' records, and nothing may stay held beyond its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop
from kit import report
from kit.process import Failed, Process, free_port, raise_descriptor_limit

SPARK = "helexa/spark"
LEASE_S = 30.0
"""Longer than a busy machine needs to start a node again: one that stays away longer is settled
at the last count that was heard, which is not what its answers said."""

SLICE = 64
ROOT_KEY = "sk-root"
LEAVE, SLOW = 0.15, 0.05
TRIES = 8
START_S = 120.0
ANSWER_S = 400.0
"""What a process and an answer may take: a busy machine is no fault of theirs."""
AGAIN = frozenset(("refused 502", "refused 503", "error event", "lost with the gateway"))
REFUSALS = frozenset((429, 502, 503, 504))
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
    """One gateway, one node, and the keys of all rounds."""

    folder: Path
    caps: dict[str, int]
    ports: tuple[int, int, int] = field(
        default_factory=lambda: (free_port(), free_port(), free_port())
    )

    def start(self) -> None:
        gateway, metrics, neuron = self.ports
        text = NEURON.format(port=neuron, folder=self.folder, slice=SLICE)
        (self.folder / "neuron.toml").write_text(text)
        text = CORTEX.format(
            port=gateway, metrics=metrics, neuron=neuron, folder=self.folder, slice=SLICE,
            lease=int(LEASE_S),
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
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[0]}{path}")
        request.add_header("authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports[1]}/metrics", timeout=60
        ) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def engine(self) -> int | None:
        """The process id of the engine."""
        for path in (self.folder / "state" / "engines").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                return int(json.loads(path.read_text())["pid"])
        return None

    async def kill_engine(self) -> None:
        pid = self.engine()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def rows(self) -> dict[str, tuple[int, int]]:
        """By request id: what was billed, and what was granted (0: without caps)."""
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as db:
            return {
                row[0]: (row[1], row[2])
                for row in db.execute(
                    "SELECT request_id, SUM(prompt + completion), SUM(COALESCE(granted, 0)) "
                    "FROM requests WHERE state <> 'open' GROUP BY request_id"
                )
            }

    def verify(self) -> dict[str, Any]:
        from helexa.cortex.ledger.database import connect  # noqa: PLC0415
        from helexa.cortex.ledger.verify import verify  # noqa: PLC0415

        db = connect(f"sqlite://{self.folder}/ledger.db")
        try:
            proof = verify(db)
        finally:
            db.close()
        return {"ok": proof.ok, "checks": [c for c in proof.checks if not c.ok]}

    def stop(self) -> None:
        for name in ("gateway", "node"):
            server = getattr(self, name, None)
            if server is not None:
                server.process.stop(15.0)


@dataclass
class Found:
    """What the clients saw in all rounds, and what was wrong."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    overshoot: int = 0
    drift: float = 0
    longest_hold: float = 0
    kills: int = 0


async def ask(
    stack: Stack, key: str, rng: random.Random, found: Found, killed: list[float]
) -> None:
    """One client: asks again, as the SDKs do, when it is told that it was not its own fault."""
    await asyncio.sleep(rng.random() * 3)
    for _ in range(TRIES):
        end = await _ask(stack, key, rng, found, killed)
        found.ends[end] += 1
        if end not in AGAIN:
            return
        await asyncio.sleep(0.5 + rng.random())


async def _ask(
    stack: Stack, key: str, rng: random.Random, found: Found, killed: list[float]
) -> str:
    """One request, and what became of it."""
    stream, tokens = rng.random() < 0.7, rng.choice((1, 5, 40, 200))
    leave = rng.random() < LEAVE
    slow = stream and rng.random() < SLOW
    body = {
        "model": SPARK, "stream": stream, "max_tokens": tokens, "ignore_eos": True,
        "messages": [{"role": "user", "content": f"Count from {rng.randrange(1000)}."}],
    }  # fmt: skip
    if stream:
        body["stream_options"] = {"include_usage": True}
    began = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_S):
            status, head, raw = await _exchange(
                stack.ports[0], key, json.dumps(body).encode(), leave=leave, slow=slow
            )
    except TimeoutError:
        found.faults.append(f"no end of an answer in {ANSWER_S:.0f} s")
        return "silent"
    end = _judge(status, raw, stream=stream, leave=leave)
    if end == "broken" and any(at >= began - 1 for at in killed):
        return "lost with the gateway"
    if end == "broken":
        found.faults.append(f"{status} {bytes(raw[-200:])!r}")
    usage = _usage(raw) if end.startswith("whole") else None
    if usage is not None:
        found.told[head.partition("x-request-id: ")[2].partition("\r\n")[0]] = usage
    return end


async def _exchange(
    port: int, key: str, payload: bytes, *, leave: bool, slow: bool
) -> tuple[int, str, bytearray]:
    """Status, head and body as far as they came; a gateway that is down is waited for."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"connection: close\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    raw = bytearray()
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        await asyncio.sleep(0.1)
    status, text = 0, ""
    try:
        writer.write(head.encode() + payload)
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(text[9:12])
        while data := await reader.read(256 if slow else 65536):
            raw += data
            if leave:
                break
            if slow:
                await asyncio.sleep(0.01)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()
    return status, text, raw


def _judge(status: int, raw: bytearray, *, stream: bool, leave: bool) -> str:
    """One of: whole, whole and cut by its budget, refused, error event, left, broken."""
    if leave and status == 200:
        return "left"
    if status in REFUSALS and b'"code"' in raw:
        return f"refused {status}"
    whole = b"data: [DONE]" in raw if stream else b'"usage"' in raw
    if status == 200 and whole:
        return "whole, cut by budget" if b'"finish":"budget"' in raw.replace(b" ", b"") else "whole"
    if status == 200 and stream and b'"error"' in raw:
        return "error event"
    return "left" if leave else "broken"


def _usage(raw: bytearray) -> int | None:
    """Tokens that the answer says it cost."""
    at = raw.rfind(b'"usage":{')
    if at < 0:
        return None
    tail = bytes(raw[at + 8 :])
    found, _ = json.JSONDecoder().raw_decode(tail.decode(errors="replace"))
    return int(found["prompt_tokens"]) + int(found["completion_tokens"])


async def shoot(stack: Stack, rng: random.Random, found: Found, killed: list[float]) -> None:
    """One kill of each kind, at random moments."""

    async def later(name: str) -> None:
        await asyncio.sleep(1 + rng.random() * 5)
        if name == "gateway":
            killed.append(time.monotonic())
            await stack.gateway.kill()
            killed.append(time.monotonic())
        elif name == "node":
            await stack.node.kill()
        else:
            await stack.kill_engine()
        found.kills += 1

    await asyncio.gather(*(later(name) for name in ("gateway", "node", "engine")))


async def round_of(
    stack: Stack, keys: Sequence[str], requests: int, rng: random.Random, found: Found
) -> None:
    """Ask, shoot, and hold the books against what was seen."""
    killed: list[float] = []
    asking = [ask(stack, rng.choice(keys), rng, found, killed) for _ in range(requests)]
    await asyncio.gather(shoot(stack, rng, found, killed), *asking)
    began = time.monotonic()
    while held := await asyncio.to_thread(_held, stack, keys):
        if time.monotonic() - began > LEASE_S + 15:
            found.faults.append(f"still held: {held}")
            click.echo(found.faults[-1], err=True)
            for line in await asyncio.to_thread(_evidence, stack):
                click.echo(line, err=True)
            break
        await asyncio.sleep(0.25)
    found.longest_hold = max(found.longest_hold, time.monotonic() - began)
    await asyncio.sleep(0.5)  # the last batch of the ledger, the last events of the node
    for key in keys:
        used = await asyncio.to_thread(stack.get, "/v1/usage", key)
        found.overshoot += max(0, used["spent_tokens"] - stack.caps[key])
    found.drift += abs(await asyncio.to_thread(stack.metric, "cortex_ledger_drift_tokens"))
    proof = stack.verify()
    if not proof["ok"]:
        found.faults.append(f"not proven: {proof['checks']}")
    billed = stack.rows()
    for request, told in found.told.items():
        if billed.get(request, (0, 0))[0] != told:
            found.faults.append(f"{request}: told {told}, billed {billed.get(request)}")
    found.told.clear()


def _held(stack: Stack, keys: Sequence[str]) -> dict[str, int]:
    """Keys of which something is held, and how much; dead lives that are not settled."""
    try:
        used = {key: stack.get("/v1/usage", key)["open_tokens"] for key in keys}
    except (OSError, urllib.error.HTTPError):
        return {"gateway": -1}
    with contextlib.closing(sqlite3.connect(stack.folder / "ledger.db")) as db:
        ((lives,),) = db.execute("SELECT COUNT(*) FROM lives WHERE state = 'live'")
        ((rows,),) = db.execute("SELECT COUNT(*) FROM requests WHERE state = 'open'")
    held = {key: tokens for key, tokens in used.items() if tokens}
    return held | ({"lives": lives} if lives > 1 else {}) | ({"rows": rows} if rows else {})


def _evidence(stack: Stack) -> list[str]:
    """What gateway, node and ledger say about what is held, for whoever looks for the reason."""
    lines = [f"gateway: {stack.get('/admin/grants')['grants']}"]
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports[2]}/requests", timeout=60) as node:
        lines.append(f"node: {node.read()[:2000]!r}")
    with contextlib.closing(sqlite3.connect(stack.folder / "ledger.db")) as db:
        for table in ("requests", "lives"):
            state = "open" if table == "requests" else "live"
            found = db.execute(f"SELECT * FROM {table} WHERE state = ?", (state,)).fetchall()
            lines.append(f"{table}: {found}")
    return lines


async def run(rounds: int, requests: int, keys: int, seed: int, folder: Path) -> report.Report:
    """Round after round."""
    command = f"python benchmarks/budgets.py --rounds {rounds} --requests {requests}"
    made = report.report("budgets", "hard budgets while everything is killed", command)
    raise_descriptor_limit()
    rng = random.Random(seed)
    names = [[f"sk-{number}-{index}" for index in range(keys)] for number in range(rounds)]
    # A prompt has about 30 tokens: from a key that affords none to one that affords most.
    caps = {name: rng.randrange(20, 100 * requests // keys) for each in names for name in each}
    stack, found = Stack(folder, caps), Found()
    try:
        stack.start()
        await _warm(stack)
        for number in range(rounds):
            began, before = time.monotonic(), found.ends.copy()
            await round_of(stack, names[number], requests, rng, found)
            ends = ", ".join(f"{n} {end}" for end, n in (found.ends - before).most_common())
            state = f"{len(found.faults)} faults so far, " if found.faults else ""
            took = time.monotonic() - began
            click.echo(f"round {number + 1}/{rounds}: {took:.0f} s, {state}{ends}", err=True)
    finally:
        stack.stop()
    for fault in found.faults[:10]:
        click.echo(fault, err=True)
    made.tables.append(
        report.TableData("Answers", ["", "n"], [[e, f"{n}"] for e, n in found.ends.most_common()])
    )
    note = f"after the last answer; the lease is {LEASE_S:.0f} s"
    made.figures += [
        report.at_most("tokens beyond a cap", found.overshoot, 0, ""),
        report.at_most("drift", found.drift, 0, "tokens"),
        report.at_most("longest hold", found.longest_hold, LEASE_S + 5, "s", note),
        report.at_most("answers or books that are wrong", len(found.faults), 0, ""),
        report.at_least("processes killed", found.kills, 3 * rounds, ""),
    ]
    return made


async def _warm(stack: Stack) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, KeyError):
            if (await asyncio.to_thread(stack.get, f"/v1/models/{SPARK}"))["loaded"]:
                return
        await asyncio.sleep(0.2)
    raise Failed("the model did not load")


@click.command(help=__doc__)
@click.option("--rounds", default=20, show_default=True)
@click.option("--requests", default=1000, show_default=True, help="In parallel, per round.")
@click.option("--keys", default=50, show_default=True, help="Per round.")
@click.option("--seed", default=1, show_default=True)
@report.json_option
def main(rounds: int, requests: int, keys: int, seed: int, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            made = uvloop.run(run(rounds, requests, keys, seed, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(made, json_file)


if __name__ == "__main__":
    main()
