"""A gateway that is killed comes back with the nodes it was given and what loads have taught."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.neuron.system.conftest import SPARK, chat, until
from tests.system.rig import CHAT, ROOT_KEY, Stack, StartStack


def restarted(stack: Stack) -> None:
    stack.cortex.stop(signal.SIGKILL)
    stack.cortex.start()


def nodes(stack: Stack) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in stack.get("/admin/fleet", "sk-root")["nodes"]}


def test_nodes_and_load_times_outlive_a_kill(start_stack: StartStack) -> None:
    stack = start_stack(load=False)
    until(lambda: nodes(stack)["one"].get("discovery"))
    with stack.client(timeout=60) as client:
        assert client.post(CHAT, json=chat()).status_code == 200  # a cold load
    added = {"name": "two", "endpoint": "http://127.0.0.1:1"}
    assert stack.admin("/admin/nodes", added).status_code == 201
    file = stack.cortex.folder / "state" / "helexa" / "fleet.json"
    until(lambda: json.loads(file.read_text())["loads"])
    before = json.loads(file.read_text())
    assert [(lesson["node"], lesson["model"]) for lesson in before["loads"]] == [("one", SPARK)]
    restarted(stack)
    found = nodes(stack)
    assert {name: node["origin"] for name, node in found.items()} == {"one": "file", "two": "admin"}
    until(lambda: "load_s" in str(nodes(stack)["one"]["models"]))
    shown = nodes(stack)["one"]["models"][SPARK]
    assert shown["load_s"] == before["loads"][0]["load_s"]
    with stack.client("sk-root") as client:
        assert client.delete("/admin/nodes/two", headers=ROOT_KEY).status_code == 200
    restarted(stack)
    assert set(nodes(stack)) == {"one"}
