"""What the editor bridge costs: its start, its first token, its memory over a long session."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from kit import report
from kit.stub import MODEL, Stub

START_BAR_MS, FIRST_BAR_MS, MEMORY_BAR_MB = 300, 5, 150


class Agent:
    """``helexa acp`` with a client that only counts."""

    def __init__(self, folder: Path, url: str) -> None:
        env = os.environ | {
            "HELEXA_ACP_BASE_URL": url,
            "HELEXA_ACP_MODEL": MODEL,
            "HELEXA_ACP_CONTEXT_WINDOW": "1000000",
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helexa.cli", "acp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self._ids = 0
        self.first_at = 0.0

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """A request; updates on the way are only timed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._ids += 1
        self.first_at = 0.0
        message = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if b"agent_message_chunk" in line and not self.first_at:
                self.first_at = time.perf_counter()
            answer = json.loads(line)
            if answer.get("id") == self._ids and "method" not in answer:
                return answer["result"]

    def rss_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def close(self) -> None:
        """End of input ends it."""
        self.process.communicate()


def direct_ms(port: int, text: str) -> float:
    """The endpoint's own first token, by a bare client."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    begun = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"content-type": "application/json"})  # fmt: skip
    answer = connection.getresponse()
    for line in answer:
        if b'"content":"' in line or b'"content": "' in line:
            break
    took = (time.perf_counter() - begun) * 1000
    connection.close()
    return took


@click.command(help=__doc__)
@click.option("--starts", default=9, show_default=True)
@click.option("--turns", default=500, show_default=True)
@report.json_option
def main(starts: int, turns: int, json_file: Path | None) -> None:
    command = f"python benchmarks/editor_bridge.py --starts {starts} --turns {turns}"
    found = report.report("editor_bridge", "the editor bridge", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        folder = Path(scratch)
        stub = Stub(folder, "--tokens=20", "--gap-ms=1", "--prefill-ms=20")
        took = []
        for _ in range(starts):
            agent = Agent(folder, stub.urls[0])
            agent.ask("initialize", {"protocolVersion": 1})
            took.append((time.perf_counter() - agent.started) * 1000)
            agent.close()
        agent = Agent(folder, stub.urls[0])
        agent.ask("initialize", {"protocolVersion": 1})
        session = agent.ask("session/new", {"cwd": scratch, "mcpServers": []})["sessionId"]
        added = []
        with click.progressbar(range(turns), label="turns", file=sys.stderr) as bar:
            for turn in bar:
                text = f"turn {turn}: " + "some words to remember " * 20
                alone = direct_ms(stub.ports[0], text) if turn < 40 else 0.0
                begun = time.perf_counter()
                prompt = [{"type": "text", "text": text}]
                agent.ask("session/prompt", {"sessionId": session, "prompt": prompt})
                if turn < 40:
                    added.append((agent.first_at - begun) * 1000 - alone)
        memory = agent.rss_mb()
        agent.close()
        stub.stop()
    note = f"{min(took):.0f} to {max(took):.0f} ms in {starts} starts"
    found.figures += [
        report.at_most("start to initialize answered", statistics.median(took), START_BAR_MS,
                       "ms", note),
        report.at_most("added to the endpoint's first token", statistics.median(added),
                       FIRST_BAR_MS, "ms", "median of 40 turns, against a bare client"),
        report.at_most(f"memory after {turns} turns", memory, MEMORY_BAR_MB, "MB"),
    ]  # fmt: skip
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
