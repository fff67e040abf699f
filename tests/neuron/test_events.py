"""The event stream: ordered, bounded, resumable, and never slowed by a reader."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from helexa.neuron.events import KEEP_ALIVE, Bus
from helexa.neuron.service import on_the_wire

pytestmark = pytest.mark.anyio


def make_bus(history: int = 8) -> Bus:
    return Bus(7, lambda: {"health": {}, "models": []}, history)


def parse(batch: bytes) -> list[dict[str, object]]:
    lines = [line for line in batch.decode().split("\n") if line.startswith("data: ")]
    return [msgspec.json.decode(line[6:]) for line in lines]


def kinds(batch: bytes) -> list[object]:
    return [event["type"] for event in parse(batch)]


def test_a_new_subscriber_gets_a_snapshot_first() -> None:
    bus = make_bus()
    bus.publish("model", {"model": {"id": "m", "status": "loaded"}})
    sub = bus.subscribe("gw")
    assert kinds(bus.due(sub)) == ["snapshot"]
    assert bus.due(sub) == b""


def test_events_follow_the_snapshot_in_order_with_epoch_and_id() -> None:
    bus = make_bus()
    sub = bus.subscribe("gw")
    bus.due(sub)
    bus.publish("drain", {})
    bus.publish("device", {"devices": []})
    batch = bus.due(sub)
    assert [(e["seq"], e["epoch"], e["type"]) for e in parse(batch)] == [
        (1, 7, "drain"),
        (2, 7, "device"),
    ]
    assert b"id: 7-2\n" in batch


def test_last_event_id_resumes_without_a_snapshot() -> None:
    bus = make_bus()
    for _ in range(5):
        bus.publish("drain", {})
    assert [e["seq"] for e in parse(bus.due(bus.subscribe(None, "7-3")))] == [4, 5]


@pytest.mark.parametrize("last", ["6-3", "7-99", "7-x", "nonsense", ""])
def test_an_id_of_another_life_or_from_the_future_gets_a_snapshot(last: str) -> None:
    bus = make_bus()
    for _ in range(5):
        bus.publish("drain", {})
    assert kinds(bus.due(bus.subscribe(None, last))) == ["snapshot"]


def test_a_reader_that_fell_out_of_the_ring_gets_a_snapshot_and_goes_on() -> None:
    bus = make_bus(history=4)
    sub = bus.subscribe(None)
    bus.due(sub)
    for _ in range(5):
        bus.publish("drain", {})
    assert kinds(bus.due(sub)) == ["snapshot"]
    bus.publish("drain", {})
    assert [e["seq"] for e in parse(bus.due(sub))] == [6]


def test_another_gateways_requests_are_not_shown() -> None:
    bus = make_bus()
    mine, other = bus.subscribe("a"), bus.subscribe("b")
    bus.due(mine), bus.due(other)
    bus.publish("grant_low", {"request_id": "r"}, gateway="a")
    assert kinds(bus.due(mine)) == ["grant_low"]
    assert bus.due(other) == b""


async def test_silence_is_filled_with_comments_and_events_come_at_once() -> None:
    bus = make_bus()
    stream = bus.subscribe(None).batches(keep_alive_s=0.01)
    assert kinds(await anext(stream)) == ["snapshot"]
    assert await anext(stream) == KEEP_ALIVE
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    bus.publish("drain", {})
    assert kinds(await waiting) == ["drain"]
    await stream.aclose()
    assert not bus.subscriptions


async def test_closing_the_bus_ends_the_streams_after_the_last_event() -> None:
    bus = make_bus()
    stream = bus.subscribe(None).batches(keep_alive_s=5)
    await anext(stream)
    bus.publish("drain", {})
    bus.close()
    assert [kinds(batch) async for batch in stream] == [["drain"]]


async def test_ends_of_requests_travel_together_and_with_whatever_is_told_at_once() -> None:
    bus = make_bus()
    stream = bus.subscribe("gw").batches(keep_alive_s=30)
    await anext(stream)
    bus.publish("request_end", {"record": {"request_id": "a"}}, gateway="gw")
    bus.publish("request_end", {"record": {"request_id": "b"}}, gateway="gw")
    assert kinds(await anext(stream)) == ["request_end", "request_end"]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    bus.publish("request_end", {"record": {"request_id": "c"}}, gateway="gw")
    await asyncio.sleep(0)
    assert not waiting.done()
    bus.publish("grant_low", {"request_id": "d"}, gateway="gw")
    assert kinds(await waiting) == ["request_end", "grant_low"]
    await stream.aclose()


def test_what_is_not_known_is_left_out_of_an_event() -> None:
    bus = Bus(7, dict, plain=on_the_wire)
    sub = bus.subscribe(None, "7-0")
    bus.publish("load_progress", {"id": "m", "progress": 0.5, "eta_s": None})
    bus.publish("load_progress", {"id": "null", "progress": 0.5, "eta_s": 1.0})
    first, second = parse(bus.due(sub))
    assert "eta_s" not in first
    assert (second["id"], second["eta_s"]) == ("null", 1.0)
