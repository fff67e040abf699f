"""What a node bills against what its engine said, over a crowd of mixed requests.

Plain and streamed answers, answers cut by their grant, clients that leave while the prompt is
read and while tokens come, and engines that are killed. The node is tapped: the engine's bytes
are counted again by other means, per event. Output billed and output thrown away together must be
what the engine sent, for every single request, and a cut is exactly at its grant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
import uvloop
from kit import report
from kit.chat import Answer, ask, body
from kit.node import SPARK, Node
from kit.process import Failed

LANES = 12
SETTINGS = """
[engines.llamacpp]
slots = 8
[admission]
max_queue_depth = 64
max_wait_secs = 300
[grants]
slice_tokens = 64
wait_ms = 20
"""
KINDS = ("plain", "streamed", "cut", "left in the prompt", "left while decoding")


class Crowd:
    """Asks, in lanes, and remembers what clients saw."""

    def __init__(self, node: Node, requests: int, kills: int, seed: int) -> None:
        self.node = node
        self.left = requests
        self.number = 0
        self.rng = random.Random(seed)
        self.kinds: dict[str, str] = {}
        self.usages: dict[str, dict[str, Any]] = {}
        self.granted: dict[str, int] = {}
        every = max(1, requests // (kills + 1))
        self.kill_at = {requests - every * (n + 1) for n in range(kills)}

    async def run(self) -> None:
        """All of them."""
        await asyncio.gather(*(self._lane() for _ in range(LANES)))

    async def _lane(self) -> None:
        while self.left > 0:
            self.left -= 1
            self.number += 1
            if self.left in self.kill_at:
                self.kill_at.discard(self.left)
                self._kill()
            if not await self._one(f"r-{self.number}"):
                self.left += 1
                await asyncio.sleep(0.1)  # the engine is coming back

    def _kill(self) -> None:
        for path in (self.node.folder / "state" / "engines").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)

    async def _one(self, name: str) -> bool:
        """One request; False when the node could not take it."""
        rng = self.rng
        kind = self.kinds[name] = rng.choice(KINDS)
        words = rng.choices(("river", "stone", "garden", "house", "tree"), k=rng.randint(1, 40))
        tokens, leave, stream = rng.randint(1, 60), None, kind != "plain"
        granted = 100_000
        if kind == "cut":
            granted, tokens = rng.randint(60, 160), 500
        elif kind == "left in the prompt":
            words, leave = words * 20, 0
        elif kind == "left while decoding":
            tokens, leave = 500, rng.randint(1, 20_000)
        self.granted[name] = granted
        payload = body(SPARK, "Repeat: " + " ".join(words), tokens, stream=stream)
        answer = await self._ask(name, payload, granted, leave)
        if answer.status == 200 and leave is None:
            self._note(name, answer, stream)
        return answer.status != 503

    async def _ask(self, name: str, payload: bytes, granted: int, leave: int | None) -> Answer:
        headers = {
            "x-helexa-gateway": "benchmark/1",
            "x-helexa-key-id": f"key-{hash(name) % 5}",
            "x-helexa-grant": str(granted),
            "x-request-id": name,
        }
        if leave != 0:
            return await ask(self.node.port, payload, headers=headers, leave_after=leave)
        asking = asyncio.create_task(ask(self.node.port, payload, headers=headers))
        await asyncio.sleep(self.rng.random() * 0.2)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await asking
        return Answer(0.0)

    def _note(self, name: str, answer: Answer, stream: bool) -> None:
        if not stream:
            at = bytes(answer.raw).find(b"{")
            self.usages[name] = json.loads(answer.raw[at:])["usage"] if at >= 0 else {}
        elif answer.whole:
            self.usages[name] = answer.end["usage"]


def wrong(line: dict[str, Any], crowd: Crowd) -> str | None:
    """What is not exact about one settled request; None when all of it is."""
    record, engine = line["record"], line["engine"]
    name, state = record["request_id"], record["state"]
    if record["output"] + record["discarded"] != engine["taken"]:
        return f"{record['output']} + {record['discarded']} ≠ the engine's {engine['taken']}"
    if record["prompt"] + record["output"] > crowd.granted[name]:
        total = record["prompt"] + record["output"]
        return f"{total} tokens of {crowd.granted[name]} granted"
    usage = crowd.usages.get(name)
    if usage is not None:
        seen = (usage["prompt_tokens"], usage["completion_tokens"])
        if seen != (record["prompt"], record["output"]):
            return f"the client was told {seen}"
    if state == "complete" and (record["prompt"], record["discarded"]) != (engine["prompt"], 0):
        return f"a prompt of {engine['prompt']}, {record['discarded']} discarded"
    if state == "cut" and record["prompt"] + record["output"] != crowd.granted[name]:
        return "cut elsewhere than at the grant"
    if state == "cancelled" and not record["output"] and record["prompt"] != engine["processed"]:
        return f"{engine['processed']} of the prompt had been read"
    return None


def settle(tap: Path, crowd: Crowd) -> tuple[list[str], Counter[str], Counter[str]]:
    """Go through the tap: faults, requests by how they ended, tokens by what became of them."""
    faults, ends, tokens = [], Counter[str](), Counter[str]()
    for text in tap.read_text().splitlines():
        line = json.loads(text)
        record = line["record"]
        ends[line["outcome"]] += 1
        if line["outcome"] == "refused":
            continue
        for name in ("prompt", "output", "discarded"):
            tokens[name] += record[name]
        tokens["engine"] += line["engine"]["taken"]
        fault = wrong(line, crowd)
        if fault is not None:
            name = record["request_id"]
            faults.append(f"{name} ({crowd.kinds[name]}, {record['state']}): {fault}")
    return faults, ends, tokens


async def run(requests: int, kills: int, seed: int, scratch: Path) -> report.Report:
    """The crowd, and the count."""
    command = f"python benchmarks/metering.py --requests {requests} --kills {kills} --seed {seed}"
    found = report.report("metering", "what is billed against what the engine said", command)
    tap = scratch / "tap.jsonl"
    tap.touch()
    os.environ["HELEXA_TAP"] = str(tap)
    program = [sys.executable, str(Path(__file__).with_name("tapped_neuron.py"))]
    node = Node(scratch / "node", SETTINGS, program=program)
    try:
        node.load(SPARK)
        crowd = Crowd(node, requests, kills, seed)
        await crowd.run()
        figures = await node.quiet(SPARK)
    finally:
        node.stop()
    faults, ends, tokens = settle(tap, crowd)
    for fault in faults[:10]:
        click.echo(fault, err=True)
    rows = [[name, f"{count:,}"] for name, count in ends.most_common()]
    found.tables.append(report.TableData("How requests ended", ["", "requests"], rows))
    note = (
        f"{ends.total():,} requests; output {tokens['output']:,} billed, "
        f"{tokens['discarded']:,} discarded; prompt {tokens['prompt']:,}"
    )
    drift = abs(tokens["output"] + tokens["discarded"] - tokens["engine"])
    held = figures.get("in_flight", -1) + figures.get("kv_used_tokens", -1)
    found.figures += [
        report.at_most("requests that are off by anything", len(faults), 0, "", note),
        report.at_most("tokens that are off in all", drift, 0, "tokens"),
        report.at_most("seats and cells left behind", held, 0, ""),
    ]
    return found


@click.command(help=__doc__)
@click.option("--requests", default=10_000, show_default=True)
@click.option("--kills", default=10, show_default=True, help="How often the engine is killed.")
@click.option("--seed", default=1, show_default=True)
@report.json_option
def main(requests: int, kills: int, seed: int, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            found = uvloop.run(run(requests, kills, seed, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
