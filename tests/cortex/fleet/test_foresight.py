"""The gateway asks nodes about cold models, seldom, and believes what they say."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from helexa.core.fleet import LoadRequest, Shortage
from helexa.core.outlook import Outlook
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.foresight import AGAIN_S, OLD_NODE_S, PATH, REFRESH_S, Foresight
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.profiles import Profile, Profiles
from helexa.cortex.residency.learned import Learned
from helexa.cortex.residency.uses import Uses, foretold_mb
from helexa.cortex.routing.leases import LeaseTable

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
pytestmark = pytest.mark.anyio

FINE = {"model_id": "org/m", "ok": True, "possible": True, "capabilities": ["text", "tools"]}
ABSENT = {"model_id": "org/m", "ok": False, "reason": "model_not_found", "detail": "not here"}


class Rig:
    """A fleet of one node, a catalogue, and a clock that is turned by hand."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.wanted: dict[str, LoadRequest] = {"org/m": LoadRequest("org/m", quant="Q4_0")}
        self.clock = 0.0
        self.fleet = Fleet(now=time.time, rng=random.Random(1))
        self.fleet.add("n", node.url, HttpNode(node.url, Trust("gw", None)))
        self.foresight = Foresight(self.fleet, self._catalogue, lambda: self.clock)
        self.looks = 0

    def _catalogue(self) -> Mapping[str, LoadRequest]:
        self.looks += 1
        return dict(self.wanted)

    @property
    def asked(self) -> int:
        return self.node.calls(PATH)

    async def known(self, happened: Callable[[NodeSnapshot], object]) -> NodeSnapshot:
        async with asyncio.timeout(30):
            fleet = await self.fleet.wait_until(lambda f: bool(happened(f.nodes[0])))
        return fleet.nodes[0]

    async def asks(self, times: int) -> None:
        """Wait until the node has been asked so often in all, and see that it is not more."""
        async with asyncio.timeout(60):
            while self.asked < times or any(n.busy for n in self.foresight._nodes.values()):
                self.foresight._bell.set()
                await asyncio.sleep(0.01)
        await self.looked()
        assert self.asked == times

    async def looked(self, times: int = 3) -> None:
        """Wait until it has looked so often again, and nothing is being asked."""
        until = self.looks + times
        async with asyncio.timeout(60):
            while self.looks < until:
                self.foresight._bell.set()
                await asyncio.sleep(0.01)


@asynccontextmanager
async def rig(fake_node: Starter, answer: dict[str, Any] | None) -> AsyncIterator[Rig]:
    async with fake_node() as node:
        node.plan = answer
        made = Rig(node)
        tasks = [asyncio.create_task(made.fleet.run()), asyncio.create_task(made.foresight.run())]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_a_node_is_asked_once_with_quant_and_source(fake_node: Starter) -> None:
    async with rig(fake_node, FINE) as made:
        made.wanted["org/m"] = LoadRequest("org/m", quant="Q4_0", source="hf")
        seen = await made.known(lambda n: n.outlooks)
        assert seen.outlooks["org/m"].capabilities == ["text", "tools"]
        await made.looked()
        assert made.asked == 1
        (body,) = [body for _, path, _, body in made.node.log if path == PATH]
        assert body == {"model_id": "org/m", "quant": "Q4_0", "source": "hf"}


async def test_it_is_asked_again_when_its_answer_is_old_or_the_catalogue_has_changed(
    fake_node: Starter,
) -> None:
    async with rig(fake_node, FINE) as made:
        await made.known(lambda n: n.outlooks)
        made.clock += REFRESH_S - 1
        await made.looked()
        assert made.asked == 1
        made.clock += 2
        await made.asks(2)
        made.wanted["org/m"] = LoadRequest("org/m", quant="Q8_0")
        await made.asks(3)


async def test_a_bad_answer_is_soon_asked_about_again(fake_node: Starter) -> None:
    async with rig(fake_node, ABSENT) as made:
        await made.known(lambda n: n.outlooks and n.outlooks["org/m"].detail == "not here")
        made.node.plan = FINE
        made.clock += AGAIN_S + 1
        await made.known(lambda n: n.outlooks["org/m"].ok)
        assert made.asked == 2


async def test_what_stays_bad_is_asked_about_ever_more_seldom(fake_node: Starter) -> None:
    async with rig(fake_node, ABSENT) as made:
        await made.known(lambda n: n.outlooks and n.epoch == 7)
        await made.looked()
        for times, waited in enumerate((15, 30, 60, 120, 240, 300, 300), 2):
            made.clock += waited - 1
            await made.looked(2)
            assert made.asked == times - 1
            made.clock += 2
            await made.asks(times)


async def test_a_node_that_has_restarted_is_asked_anew(fake_node: Starter) -> None:
    async with rig(fake_node, FINE) as made:
        await made.known(lambda n: n.outlooks and n.epoch == 7)
        await made.looked()
        before = made.asked
        made.node.epoch, made.node.seq = 8, 0
        made.node.plan = FINE | {"capabilities": ["text"]}
        made.node.cut()
        await made.known(lambda n: n.outlooks["org/m"].capabilities == ["text"])
        assert made.asked > before


async def test_a_node_that_does_not_know_the_question_is_left_alone(fake_node: Starter) -> None:
    async with rig(fake_node, None) as made:
        made.wanted["org/n"] = LoadRequest("org/n")
        await made.asks(1)
        made.clock += OLD_NODE_S + 1
        await made.asks(2)


async def test_what_leaves_the_catalogue_is_forgotten(fake_node: Starter) -> None:
    async with rig(fake_node, FINE) as made:
        await made.known(lambda n: n.outlooks)
        del made.wanted["org/m"]
        await made.known(lambda n: not n.outlooks)


async def test_garbage_is_no_answer(fake_node: Starter) -> None:
    async with rig(fake_node, {"ok": "perhaps"}) as made:
        await made.asks(1)
        assert made.fleet.snapshot().nodes[0].outlooks == {}


def test_a_load_that_is_foretold_to_be_short_need_not_be_tried() -> None:
    short = Outlook("m", False, True, "insufficient_vram",
                    shortage=Shortage(9000, usable_mb=6000, free_mb=8000))  # fmt: skip
    uses = Uses(LeaseTable(), Learned(lambda: 0.0), lambda: 0.0)
    node = NodeSnapshot("n", "", outlooks={"m": short})
    unknown, estimated = Profiles((Profile("m"),)), Profiles((Profile("m", vram_mb=500),))
    assert uses.option(node, "m", unknown).need_mb == 11_000
    assert uses.option(node, "m", estimated).need_mb == 500
    assert uses.option(NodeSnapshot("n", ""), "m", unknown).need_mb is None


def test_what_a_model_lacks_by_its_node_is_what_its_load_takes() -> None:
    short = Outlook("m", False, True, "insufficient_vram",
                    shortage=Shortage(9000, usable_mb=6000, free_mb=8000))  # fmt: skip
    assert foretold_mb(short) == 11_000
    assert foretold_mb(Outlook("m", True, True)) is None
    assert foretold_mb(None) is None


async def test_a_node_that_is_reached_another_way_by_now_is_asked_anew_and_known_again(
    fake_node: Starter,
) -> None:
    async with rig(fake_node, FINE) as made:
        await made.known(lambda n: n.outlooks)
        before = made.fleet.api("n")
        await made.fleet.remove("n")  # as a changed cortex.toml does: at once, by the same name
        made.fleet.add("n", made.node.url, HttpNode(made.node.url, Trust("gw", None)))
        assert made.fleet.api("n") is not before
        seen = await made.known(lambda n: n.outlooks)
        assert seen.outlooks["org/m"].capabilities == ["text", "tools"]
        await made.asks(2)
