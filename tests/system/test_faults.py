"""Processes are killed, clients leave, readers dawdle, certificates change: through both hops."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.neuron.system.conftest import (
    SPARK,
    alive,
    chat,
    endless,
    events,
    raw_request,
    until,
)
from tests.system.rig import CHAT, Stack, StartStack

AS_OPEN = {"authorization": "Bearer sk-open"}


class Reader(threading.Thread):
    """Reads one streamed answer to its end."""

    def __init__(self, url: str, body: Any) -> None:
        super().__init__()
        self.url = url
        self.body = body
        self.status = 0
        self.lines: list[str] = []
        self.broke: Exception | None = None
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(60)

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", self.url + CHAT, json=self.body, headers=AS_OPEN, timeout=60
            ) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    if line:
                        self.lines.append(line)
                        self.begun.set()
        except httpx.HTTPError as error:
            self.broke = error
        self.begun.set()

    def ended(self) -> Any:
        """The last event's data, once the stream is over."""
        self.join(60)
        assert not self.is_alive()
        assert self.broke is None
        *_, last = events(iter(self.lines))
        return last

    @property
    def done(self) -> bool:
        return "data: [DONE]" in self.lines


def multiplexed(stack: Stack) -> bool:
    """Whether the node is asked over one connection, as the administration is told."""
    return stack.get("/admin/fleet", "sk-root")["nodes"][0]["multiplexed"] is True


def connections(stack: Stack) -> set[str]:
    """The gateway's connections to its node, by their sockets' numbers."""
    port = f":{httpx.URL(stack.node.url).port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    there = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
    found = set()
    for file in Path(f"/proc/{stack.cortex.pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.add(str(file.readlink()))
    return there & found


def test_a_crash_is_local(start_stack: StartStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 6: the engine, then the node are killed; the gateway says so and goes on."""
    monkeypatch.setenv("NEURON_LOCAL_SOCKET", "false")  # connections can be counted
    stack = start_stack(node="[engines.llamacpp]\nslots = 12\n")
    reader = Reader(stack.url, endless(8000, stream=True))
    (engine,) = stack.node.engines()
    os.kill(engine, signal.SIGKILL)
    assert reader.ended()["error"]["code"] in ("upstream_connection_error", "model_recovering")
    assert not reader.done
    until(lambda: stack.ask(chat(max_tokens=2)).status_code == 200)

    # Many at once share one connection to the node, and end with it each in its own stream.
    until(lambda: multiplexed(stack))
    before = connections(stack)
    readers = [Reader(stack.url, endless(2500, stream=True)) for _ in range(12)]
    assert stack.node.in_flight() > 3
    assert len(connections(stack) - before) <= 2  # a poll may have opened one
    engines = stack.node.engines()
    stack.node.stop(signal.SIGKILL)
    for reader in readers:
        last = reader.ended()
        assert reader.done or last["error"]["code"] == "upstream_connection_error"
    assert not multiplexed(stack)
    assert httpx.get(f"{stack.url}/health", timeout=60).json()["nodes"]["total"] == 1
    refused = stack.ask(chat(max_tokens=2))
    assert refused.status_code in (502, 503)
    until(lambda: not any(alive(pid) for pid in engines))

    # The same node comes back where it was, and is found again.
    stack.revive_node()
    stack.node.load()
    until(lambda: stack.ask(chat(max_tokens=2)).status_code == 200)
    until(lambda: multiplexed(stack))
    outcomes = [r["outcome"] for r in stack.get("/admin/requests", "sk-root")["requests"]]
    assert outcomes.count("broken") > 2


def test_a_node_that_stands_still_costs_its_requests_a_deadline_and_goes_on_afterwards(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_LOCAL_SOCKET", "false")
    stack = start_stack("[timeouts]\nbetween_bytes = 3\n")
    reader = Reader(stack.url, endless(8000, stream=True))
    before = connections(stack)
    os.kill(stack.node.pid, signal.SIGSTOP)
    try:
        assert reader.ended()["error"]["code"] == "upstream_timeout"
        assert httpx.get(f"{stack.url}/health", timeout=60).status_code in (200, 503)
    finally:
        os.kill(stack.node.pid, signal.SIGCONT)
    until(lambda: stack.ask(chat(max_tokens=2)).status_code == 200)
    until(lambda: stack.node.in_flight() == 0)  # it has read that nobody waits any more
    assert multiplexed(stack)
    assert len(connections(stack) & before) >= 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_midway_frees_the_slot_through_both_hops(
    start_stack: StartStack, stream: bool
) -> None:
    stack = start_stack(node="[engines.llamacpp]\nslots = 1\n")
    took: list[float] = []
    while not took or (min(took) >= 0.1 and len(took) < 40):  # others use this machine too
        leaver = raw_request(stack.url, endless(stream=stream), authorization="Bearer sk-meter")
        until(lambda: any(r["state"] == "decode" for r in stack.node.get("/requests")))
        leaver.close()
        left = time.monotonic()
        until(lambda: stack.node.in_flight() == 0, every_s=0.002)
        took.append(time.monotonic() - left)
    assert min(took) < 0.1, took
    assert stack.ask(chat(max_tokens=2)).status_code == 200
    # What was computed is billed, by the node's own count.
    used = stack.settled("sk-meter")
    assert 0 < used["spent_tokens"] < 4100 * len(took)
    assert until(lambda: [e for e in stack.cortex.lines() if e.get("outcome") == "cancelled"])


def test_a_slow_reader_costs_bounded_memory_on_both_hops(start_stack: StartStack) -> None:
    stack = start_stack()
    who = AS_OPEN["authorization"]
    before = stack.cortex.rss_kb() + stack.node.rss_kb()
    socks = [
        raw_request(stack.url, endless(7000, stream=True), rcvbuf=4096, authorization=who)
        for _ in range(2)
    ]
    until(lambda: sum(r.get("output", 0) > 0 for r in stack.node.get("/requests")) >= 2)
    time.sleep(1.5)
    assert stack.ask(chat(max_tokens=2)).status_code == 200
    grown = stack.cortex.rss_kb() + stack.node.rss_kb() - before
    assert grown < 24_000, grown
    for sock in socks:
        sock.close()
    until(lambda: stack.node.in_flight() == 0)


def test_sigterm_lets_a_stream_finish_and_leaves_nothing(start_stack: StartStack) -> None:
    stack = start_stack("[gateway]\ndrain_secs = 20\n")
    reader = Reader(stack.url, endless(600, stream=True))
    assert stack.cortex.stop(signal.SIGTERM) == 0
    reader.join(60)
    assert reader.done
    assert reader.broke is None
    assert stack.cortex.lines()[-1]["event"] != "crashed"
    assert any(line.get("outcome") == "complete" for line in stack.cortex.lines())


def test_sigterm_cuts_what_takes_too_long_in_the_clients_dialect(start_stack: StartStack) -> None:
    stack = start_stack("[gateway]\ndrain_secs = 0.3\n")
    reader = Reader(stack.url, endless(8000, stream=True))
    assert stack.cortex.stop(signal.SIGTERM) == 0
    assert reader.ended()["error"]["code"] == "service_unavailable"
    assert not reader.done
    until(lambda: stack.node.in_flight() == 0)


def test_the_wrong_fleet_secret_is_named_in_the_fleets_status(start_stack: StartStack) -> None:
    stack = start_stack(load=False, secret="not-the-same")
    nodes = until(
        lambda: [n for n in stack.get("/admin/fleet", "sk-root")["nodes"] if n.get("error")]
    )
    assert "secret" in nodes[0]["error"]
    assert stack.ask(chat()).status_code in (404, 503)


def certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", f"{folder}/new.key", "-out", f"{folder}/new.crt"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    for kind in ("key", "crt"):
        (folder / f"new.{kind}").replace(folder / f"tls.{kind}")


def test_a_gateway_behind_tls_streams_and_takes_a_new_certificate(
    start_stack: StartStack, tmp_path: Path
) -> None:
    certificate(tmp_path, "first")
    stack = start_stack(
        f'[gateway]\ntls_cert = "{tmp_path}/tls.crt"\ntls_key = "{tmp_path}/tls.key"\n', load=False
    )
    assert stack.url.startswith("https://")
    stack.node.load()

    def ask() -> str:
        done = subprocess.run(
            ["curl", "-sSN", "-m", "60", "--cacert", f"{tmp_path}/tls.crt", stack.url + CHAT,
             "-d", json.dumps(chat(stream=True, max_tokens=5))],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        return done.stdout

    until(lambda: ask().endswith("data: [DONE]\n\n"))
    port = httpx.URL(stack.url).port
    first = ssl.get_server_certificate(("127.0.0.1", port or 0))
    certificate(tmp_path, "second")
    until(lambda: ssl.get_server_certificate(("127.0.0.1", port or 0)) != first, every_s=0.1)
    assert ask().endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('[[neurons]]\nname = "a"\nendpoint = "https://127.0.0.1:1"\nca = "CA"\n', "ca"),
        ('models_config = "nowhere.toml"\n', "nowhere.toml"),
        ('[fleet]\nsecret_file = "nowhere"\n', "fleet.secret_file"),
        ('[gateway]\ntls_cert = "CA"\ntls_key = "CA"\n', "tls"),
        ('[ledger]\nurl = "sqlite://spend.db"\n', "write sqlite:///path/to/ledger.db"),
        ('[ledger]\nurl = "mysql://host/spend"\n', "is not a ledger; write sqlite:///"),
    ],
)
def test_a_configuration_that_cannot_work_stops_the_start(
    tmp_path: Path, config: str, words: str
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    file = tmp_path / "cortex.toml"
    file.write_text(config.replace("CA", f"{tmp_path}/ca.pem"))
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", "cortex", "--port", "0", "--metrics-port", "0",
         "--config", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_one_model_is_asked_for_by_its_id_only(start_stack: StartStack) -> None:
    stack = start_stack(load=False)
    # Nobody has loaded it: the first request does.
    got = until(lambda: (a := stack.ask(chat(max_tokens=3))).status_code == 200 and a)
    assert got.json()["model"] == SPARK
    assert got.headers["x-helexa-cold-start"] == "true"


def test_a_kept_response_survives_the_gateways_death(start_stack: StartStack) -> None:
    stack = start_stack()

    def respond(**more: Any) -> httpx.Response:
        with stack.client() as client:
            body = {"model": SPARK, "max_output_tokens": 8, "temperature": 0, **more}
            return client.post("/v1/responses", json=body)

    made = respond(input="Repeat: house").json()
    # It is written a moment after its last byte; whatever asks for it waits for that.
    assert stack.get(f"/v1/responses/{made['id']}")["output"] == made["output"]
    stack.cortex.stop(signal.SIGKILL)
    stack.cortex.start()
    stack.warm()
    assert stack.get(f"/v1/responses/{made['id']}") == made
    assert respond(input="Repeat: tree", previous_response_id=made["id"]).status_code == 200
