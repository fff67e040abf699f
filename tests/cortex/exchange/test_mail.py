"""What nodes are told of their requests: none of it waits for what it need not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from tests.relay.rig import until

from helexa.core.errors import UpstreamConnectionError
from helexa.cortex.exchange.mail import Mail
from helexa.cortex.fleet.client import Answer, NodeApi

pytestmark = pytest.mark.anyio


class Node:
    """What a node is posted, and whether it can be reached."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.down = False

    async def post(self, path: str, body: object, timeout_s: float) -> Answer:
        await asyncio.sleep(0)
        if self.down:
            raise UpstreamConnectionError("no connection")
        self.posted.append((path, msgspec.to_builtins(body)))
        return Answer(200, b"{}")


def mail_of(node: Node, written: Callable[[], Any]) -> Mail:
    return Mail(lambda _name: cast("NodeApi", node), written)


def acked(node: Node) -> list[str]:
    return [each["request_id"] for path, body in node.posted if "ack" in path for each in body]


def granted(node: Node) -> dict[str, int]:
    """By request, as the node has it now."""
    bodies = [body for path, body in node.posted if "grants" in path]
    return {each["request_id"]: each["granted"] for body in bodies for each in body}


async def test_a_higher_grant_does_not_wait_for_a_ledger_that_is_slow_to_write() -> None:
    node, durable = Node(), asyncio.Event()
    mail = mail_of(node, durable.wait)
    mail.to("n").acks[("ended", 1)] = None
    mail.send()
    await asyncio.sleep(0)  # it waits for the ledger now
    mail.grant("n", "runs", 900)
    await until(lambda: granted(node) == {"runs": 900})
    assert not acked(node)
    durable.set()
    await until(lambda: acked(node) == ["ended"])
    assert not mail.to("n").acks


async def test_grants_that_could_not_be_told_go_with_the_next_round_and_newer_ones_stand() -> None:
    node = Node()
    mail = mail_of(node, asyncio.Event().wait)
    node.down = True
    mail.grant("n", "a", 100)
    mail.grant("n", "b", 100)
    await asyncio.sleep(0)  # it is being posted
    mail.grant("n", "a", 200)
    telling = mail.to("n").telling
    assert telling is not None
    await telling
    node.down = False
    mail.send()
    await until(lambda: granted(node) == {"a": 200, "b": 100})


async def test_an_end_is_acknowledged_with_its_record_and_without_one_a_round_later() -> None:
    node = Node()
    mail = mail_of(node, lambda: asyncio.sleep(0))
    acks = mail.to("n").acks
    acks["compared", 1], acks["booked", 1] = None, 70
    for expected in (["compared"], ["compared", "booked"]):
        mail.send()
        acking = mail.to("n").acking
        assert acking is not None
        await acking
        assert acked(node) == expected
    assert not acks
