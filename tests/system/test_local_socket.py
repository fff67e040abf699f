"""A gateway and a node on one machine: the Unix socket between them, and doing without."""

from __future__ import annotations

import signal
import stat
from typing import Any

import httpx
import pytest
from tests.neuron.system.conftest import chat, until
from tests.system.rig import SECRET, Stack, StartStack


def way(stack: Stack) -> str | None:
    """The socket over which the node is asked, as the administration is told."""
    found: str | None = stack.get("/admin/fleet", "sk-root")["nodes"][0]["socket"]
    return found


def multiplexed(stack: Stack) -> bool:
    """Whether its requests share one connection there."""
    return stack.get("/admin/fleet", "sk-root")["nodes"][0]["multiplexed"] is True


def switches(url: str, **headers: str) -> int:
    """The status of a request for a multiplexed connection."""
    asked = {"connection": "upgrade", "upgrade": "helexa-multiplex/1"} | headers
    with httpx.Client(timeout=60) as client:
        return client.get(f"{url}/multiplex", headers=asked).status_code


def said(stack: Stack) -> list[str]:
    """What the gateway has logged of the ways to its node."""
    whats = [str(line["what"]) for line in stack.cortex.lines() if line.get("event") == "node"]
    return [what for what in whats if what.startswith("asked over")]


def served(stack: Stack) -> bool:
    return stack.ask(chat(max_tokens=4)).status_code == 200


def discovery(stack: Stack, **options: Any) -> httpx.Response:
    with httpx.Client(timeout=60, **options) as client:
        return client.get(f"{stack.node.url}/discovery")


def test_a_gateway_on_the_same_machine_asks_over_a_socket_as_long_as_there_is_one(
    start_stack: StartStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = start_stack()
    node, file = stack.node, stack.node.folder / "state" / "neuron.sock"
    until(lambda: way(stack) == str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert served(stack)
    until(lambda: multiplexed(stack))

    # The secret holds there as it does at the port.
    over = httpx.HTTPTransport(uds=str(file))
    assert discovery(stack, transport=over).status_code == 401
    assert switches(node.url) == 401
    assert switches(stack.url, authorization="Bearer sk-root") == 404  # only nodes have it

    # It dies, and comes back without one; what it left behind leads nowhere.
    monkeypatch.setenv("NEURON_PORT", str(httpx.URL(node.url).port))
    node.stop(signal.SIGKILL)
    assert file.exists()
    settings, node.settings = (
        node.settings,
        "local_socket = false\nmultiplex = false\n" + node.settings,
    )
    node.start()
    until(lambda: served(stack))
    until(lambda: way(stack) is None)
    assert not multiplexed(stack)
    trusted = {"authorization": f"Bearer {SECRET}"}
    assert "socket" not in discovery(stack, headers=trusted).json()
    assert discovery(stack, headers=trusted).json().get("multiplex", 0) == 0

    # It dies again and comes back with one.
    node.stop(signal.SIGKILL)
    node.settings = settings
    node.start()
    until(lambda: way(stack) == str(file))
    until(lambda: served(stack) and multiplexed(stack))
    told = discovery(stack, headers=trusted).json()["socket"]
    assert (told["path"], told["port"]) == (str(file), httpx.URL(node.url).port)
    first, lost, again = until(lambda: len(lines := said(stack)) > 2 and lines)
    assert first == again == f"asked over {file}"
    assert lost.startswith("asked over the network again")

    node.stop()
    assert not file.exists()
