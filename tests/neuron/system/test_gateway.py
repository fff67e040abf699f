"""A real gateway in front of a real node: its records are its own, and they are taken away."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

CORTEX = """
[gateway]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[[neurons]]
name = "node"
endpoint = "{url}"
"""
REQUESTS, LANES = 200, 8


@pytest.fixture
def gateway(node: Any, tmp_path: Path) -> Iterator[str]:
    """The URL of a cortex in front of ``node``."""
    config = tmp_path / "cortex.toml"
    config.write_text(CORTEX.format(url=node.url))
    command = [sys.executable, "-m", "helexa.cli", "cortex", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={"XDG_STATE_HOME": str(tmp_path)}
        )
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()
        assert line, (tmp_path / "log").read_text()
        yield json.loads(line)["url"]
        process.terminate()


def test_records_carry_the_gateways_life_and_are_acknowledged(
    node: Any, h: Any, gateway: str
) -> None:
    seen: dict[str, tuple[str, int]] = {}
    statuses: list[int] = []
    h.until(lambda: h.SPARK in httpx.get(gateway + "/v1/models", timeout=60).text)
    size = (node.folder / "state" / "requests.records").stat().st_size

    def lane(number: int) -> None:
        with httpx.Client(base_url=gateway, timeout=60) as client:
            for _ in range(REQUESTS // LANES):
                body = h.chat(f"{number}", max_tokens=2, stream=number % 2 == 0)
                statuses.append(client.post("/v1/chat/completions", json=body).status_code)

    threads = [threading.Thread(target=lane, args=[number]) for number in range(LANES)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for found in node.get("/requests"):
            seen[found["request_id"]] = (found["gateway"], found.get("epoch", 0))
    for thread in threads:
        thread.join()
    assert statuses == [200] * REQUESTS
    assert len(set(seen.values())) == 1
    (name, epoch) = next(iter(seen.values()))
    assert name
    assert epoch > 0
    h.until(lambda: node.get("/requests") == [])
    assert (node.folder / "state" / "requests.records").stat().st_size == size


def test_whoever_leaves_before_the_first_event_is_no_bug(start_node: Any) -> None:
    node = start_node()
    url = httpx.URL(node.url)
    for _ in range(20):
        leaver = socket.create_connection((url.host, url.port))
        leaver.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        # Closing with this set resets the connection, as a gateway that is killed does.
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaver.close()
    assert node.get("/health")["models"] == []
    node.stop()  # the log is whole then
    assert '"bug"' not in node.log()
