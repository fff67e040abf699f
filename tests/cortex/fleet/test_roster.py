"""Nodes that come, change and go while the gateway runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from helexa.core.errors import InvalidRequestBody
from helexa.core.settings import SettingsError
from helexa.cortex.fleet.roster import NodesFile, Roster
from helexa.cortex.settings import NeuronSettings

pytestmark = pytest.mark.anyio


class Door:
    """Notes who is let in and out."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def check(self, node: NeuronSettings) -> None:
        if node.ca is not None:
            raise SettingsError(f"neurons: the ca {node.ca} cannot be used")

    def open(self, node: NeuronSettings) -> None:
        self.log.append(f"open {node.name} {node.endpoint}")

    async def close(self, name: str) -> None:
        self.log.append(f"close {name}")


def node(name: str, port: int = 1) -> NeuronSettings:
    return NeuronSettings(name, f"http://{name}:{port}")


async def test_only_what_the_file_changed_is_changed() -> None:
    door = Door()
    roster = Roster(door)
    roster.start([node("a"), node("b"), node("c")])
    door.log.clear()
    assert await roster.follow([node("a"), node("b", 2), node("d")]) == [
        "removed c", "changed b", "added d"
    ]  # fmt: skip
    assert door.log == ["close c", "close b", "open b http://b:2", "open d http://d:1"]
    door.log.clear()
    assert await roster.follow([node("a"), node("b", 2), node("d")]) == []
    assert door.log == []


async def test_a_node_that_cannot_be_reached_as_the_file_says_changes_nothing() -> None:
    door = Door()
    roster = Roster(door)
    roster.start([node("a"), node("b")])
    door.log.clear()
    with pytest.raises(SettingsError, match="/gone"):
        await roster.follow([NeuronSettings("b", "https://b", ca=Path("/gone"))])
    assert door.log == []
    assert await roster.follow([node("b")]) == ["removed a"]


async def test_what_the_administration_did_stays_until_the_file_says_otherwise() -> None:
    door = Door()
    roster = Roster(door)
    roster.start([node("a"), node("b")])
    await roster.add(node("extra"))
    assert await roster.remove("a")
    assert not await roster.remove("a")
    assert (roster.origin("extra"), roster.origin("b")) == ("admin", "file")
    assert await roster.follow([node("a"), node("b"), node("c")]) == ["added c"]
    assert await roster.follow([node("a", 9), node("b"), node("c")]) == ["added a"]
    assert door.log[-1] == "open a http://a:9"


async def test_a_node_that_comes_while_one_of_its_name_goes_is_not_taken_along() -> None:
    class SlowDoor(Door):
        """Takes its time to close."""

        def __init__(self) -> None:
            super().__init__()
            self.may_end = asyncio.Event()

        async def close(self, name: str) -> None:
            await self.may_end.wait()
            await super().close(name)

    door = SlowDoor()
    roster = Roster(door)
    roster.start([node("a")])
    gone, come = asyncio.create_task(roster.remove("a")), asyncio.create_task(roster.add(node("a")))
    await asyncio.sleep(0)
    door.may_end.set()
    assert await gone
    await come
    assert door.log == ["open a http://a:1", "close a", "open a http://a:1"]


async def test_a_node_that_cannot_be_told_apart_is_refused() -> None:
    roster = Roster(Door())
    roster.start([node("a")])
    with pytest.raises(InvalidRequestBody, match="two neurons called"):
        await roster.add(node("a", 2))
    with pytest.raises(InvalidRequestBody, match="endpoint"):
        await roster.add(NeuronSettings("b", "http://a:1"))
    with pytest.raises(SettingsError):
        await roster.follow([node("a"), NeuronSettings("b", "nonsense")])


async def test_the_file_is_read_when_it_changed_or_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "cortex.toml"
    path.write_text("one")
    reads: list[str] = []

    def read() -> tuple[NeuronSettings, ...]:
        reads.append(path.read_text())
        return (node(path.read_text()),)

    file = NodesFile(path, read, Roster(Door()))
    assert await file.refresh() == []
    assert reads == []
    assert await file.refresh(asked=True) == ["added one"]
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert await file.refresh() == ["removed one", "added two"]
    path.unlink()
    assert await file.refresh() == []
