from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli.served import served

from helexa.cli.cortex import cortex_script

HEALTH: dict[str, Any] = {"status": "ok", "nodes": {"healthy": 1, "total": 2}, "unservable": []}
SICK: dict[str, Any] = {
    "status": "degraded",
    "nodes": {"healthy": 1, "total": 2},
    "unservable": [{"node": "b", "model": "m", "reason": "nan", "detail": "NaN logits"}],
}
MODELS: dict[str, Any] = {
    "data": [
        {
            "id": "helexa/spark",
            "locations": [{"node": "a", "status": "loaded"}],
            "limit": {"context": 8192},
        },
        {"id": "big", "locations": [], "feasible_on": ["a", "b"]},
    ]
}


class Gateway(ThreadingHTTPServer):
    health = HEALTH
    asked: tuple[tuple[str, str | None], ...] = ()


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self.server.asked += ((self.path, self.headers.get("authorization")),)
        body = json.dumps(self.server.health if self.path == "/health" else MODELS).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with served(Gateway(("127.0.0.1", 0), Handler)) as gateway:
        yield gateway


def status(gateway: Gateway, *arguments: str) -> Result:
    endpoint = f"http://127.0.0.1:{gateway.server_address[1]}/v1"
    return CliRunner().invoke(cortex_script, ["status", "--endpoint", endpoint, *arguments])


def test_a_line_per_model_with_its_nodes(gateway: Gateway) -> None:
    done = status(gateway, "--key", "k")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "ok: 1 of 2 nodes healthy",
        "  ! `helexa fleet status` says which node does not answer, and why",
        "helexa/spark  a (loaded)  8192 tokens",
        "big           asleep, could run on a, b",
    ]
    assert gateway.asked == (("/health", None), ("/v1/models", "Bearer k"))


def test_json_is_one_object(gateway: Gateway) -> None:
    done = status(gateway, "--json")
    assert json.loads(done.stdout) == {"health": HEALTH, "models": MODELS["data"]}


def test_a_gateway_that_is_not_well_is_status_1_and_says_why(gateway: Gateway) -> None:
    gateway.health = SICK
    done = status(gateway)
    assert done.exit_code == 1
    assert "! m on b: NaN logits" in done.stdout


def test_nodes_that_take_no_new_work_are_counted(gateway: Gateway) -> None:
    gateway.health = HEALTH | {"nodes": {"healthy": 2, "total": 2, "draining": 1}}
    assert status(gateway).stdout.startswith("ok: 2 of 2 nodes healthy, 1 taking no new work\n")


@pytest.mark.parametrize("endpoint", ["http://[::1", "ftp://host", "http://", "http://h:x"])
def test_an_endpoint_that_is_none_is_wrong_usage(endpoint: str) -> None:
    found = CliRunner().invoke(cortex_script, ["status", "--endpoint", endpoint])
    assert found.exit_code == 2
    assert "http://host:31313" in found.output


def test_a_password_in_an_endpoint_is_refused_and_not_shown() -> None:
    asked = ["status", "--endpoint", "http://u:geheim@127.0.0.1:1"]
    found = CliRunner().invoke(cortex_script, asked)
    assert found.exit_code == 2
    assert "--key" in found.output
    assert "geheim" not in found.output


def test_nobody_there_is_status_1_and_names_the_endpoint() -> None:
    done = CliRunner().invoke(cortex_script, ["status", "--endpoint", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "nobody listens at http://127.0.0.1:1; `helexa up` starts" in done.stderr


def test_a_name_that_is_none_is_told_from_a_port_that_nobody_listens_at() -> None:
    asked = ["status", "--endpoint", f"http://{'a' * 70}.example:1"]
    done = CliRunner().invoke(cortex_script, asked)
    assert done.exit_code == 1
    assert "it is not a host name" in done.stderr
    assert "check its spelling" in done.stderr


def test_a_ledger_that_cannot_be_written_is_said(gateway: Gateway) -> None:
    gateway.health = HEALTH | {"ledger": {"ok": False, "for_s": 9.0, "unwritten": 3}}
    assert status(gateway).stdout.splitlines()[1] == (
        "  ! the ledger cannot be written; `helexa fleet status` says why"
    )
