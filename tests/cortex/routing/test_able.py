"""A request goes where it can be done, and is told where else if nobody here can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cortex.routing.test_placer import placing
from tests.pictures import part, png

from helexa.core.errors import UnsupportedOperation, VisionUnsupported
from helexa.core.outlook import Outlook
from helexa.core.principal import ANONYMOUS, Principal
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.profiles import Profile, Profiles
from helexa.cortex.routing import able
from helexa.wire.peek import peek

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]

SEES, WRITES, EMBEDS = ["text", "tools", "vision"], ["text", "tools"], ["embeddings"]
IMAGE = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part(png())]}]}


@pytest.mark.parametrize(
    ("capabilities", "need", "does"),
    [
        ((), "vision", True),  # nothing was told: the node decides
        (SEES, "vision", True),
        (WRITES, "vision", False),
        (WRITES, "text", True),
        (["tools"], "text", True),
        (EMBEDS, "text", False),
        (["rerank"], "text", False),
        (EMBEDS, "embeddings", True),
        (["text", "embeddings"], "text", True),
        (WRITES, "rerank", False),
    ],
)
def test_what_is_told_decides_and_nothing_told_excludes_nothing(
    capabilities: Sequence[str], need: str, does: bool
) -> None:
    assert able.can(capabilities, need) is does


@given(st.lists(st.lists(st.sampled_from(able.NEEDS), max_size=4), max_size=4))
def test_a_need_is_lacking_where_a_place_cannot(told: list[list[str]]) -> None:
    for need in able.NEEDS:
        assert (need in able.lacking(told)) == any(not able.can(each, need) for each in told)


def chat(name: str, **more: Any) -> Any:
    return peek(json.dumps({"model": name, **IMAGE, **more}).encode())


@pytest.mark.anyio
async def test_images_go_only_to_places_that_see(fake_node: Starter, model: Model) -> None:
    blind, seeing = model("m", capabilities=WRITES), model("m", capabilities=SEES)
    async with fake_node(blind) as one, fake_node(seeing) as two, placing(one, two) as placer:
        for _ in range(10):
            placed = placer.find("m", ANONYMOUS, chat("m"), None, None, "vision")[1]
            assert placed is not None
            assert placed.node == "n1"
            placer.lease(placed, "m")
        words = placer.find("m", ANONYMOUS, chat("m"), None, None, "text")[1]
        assert words is not None
        assert words.node == "n0"
        assert placer.now("m", {"n1"}, None, "vision") is None


@pytest.mark.anyio
async def test_what_nobody_can_is_refused_and_a_model_that_can_is_named(
    fake_node: Starter, model: Model
) -> None:
    models = [
        model("writer", capabilities=WRITES),
        model("seer", capabilities=SEES),
        model("embedder", capabilities=EMBEDS),
    ]
    async with fake_node(*models) as node, placing(node) as placer:
        with pytest.raises(VisionUnsupported, match="'seer'") as blind:
            placer.find("writer", ANONYMOUS, chat("writer"), None, None, "vision")
        assert blind.value.param == "messages[0].content[1]"
        with pytest.raises(UnsupportedOperation, match=r"makes no embeddings.*Use 'embedder'"):
            placer.find("writer", ANONYMOUS, None, None, None, "embeddings")
        with pytest.raises(UnsupportedOperation, match=r"makes no text.*'writer' or 'seer'"):
            placer.find("embedder", ANONYMOUS)
        with pytest.raises(UnsupportedOperation, match="No model here is known to"):
            placer.find("writer", ANONYMOUS, None, None, None, "rerank")
        tied = Principal("a", "a", models=("embedder", "writer"))
        with pytest.raises(UnsupportedOperation) as refused:
            placer.find("embedder", tied)
        assert "writer" in refused.value.message
        assert "seer" not in refused.value.message


@pytest.mark.anyio
async def test_words_that_look_like_an_image_are_no_image(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m", capabilities=WRITES)) as node, placing(node) as placer:
        seen = peek(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
        assert placer.find("m", ANONYMOUS, seen, None, None, "vision")[1] is not None


COLD = Profiles(
    (Profile("cold", "llamacpp", min_devices=1),
     Profile("told", "llamacpp", min_devices=1, capabilities=("text", "tools"))),
)  # fmt: skip


@pytest.mark.anyio
async def test_a_sleeping_model_is_not_woken_for_what_the_catalogue_rules_out(
    fake_node: Starter,
) -> None:
    async with fake_node() as node, placing(node, profiles=COLD) as placer:
        with pytest.raises(VisionUnsupported):
            placer.find("told", ANONYMOUS, chat("told"), None, None, "vision")
        assert placer.find("cold", ANONYMOUS, chat("cold"), None, None, "vision") == ("cold", None)
        assert node.calls("/models/load") == 0


@pytest.mark.anyio
async def test_a_model_that_turns_out_to_be_blind_says_so_once_it_is_awake(
    fake_node: Starter, model: Model
) -> None:
    seer = model("seer", capabilities=SEES)
    async with fake_node(seer) as node, placing(node, profiles=COLD) as placer:
        node.finish_loads = False
        waiting = asyncio.create_task(
            placer.later("cold", ANONYMOUS, frozenset(), None, need="vision")
        )
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
            node.put(model("cold", capabilities=WRITES))
            with pytest.raises(VisionUnsupported, match="'seer'"):
                await waiting


def test_of_a_sleeping_model_its_files_tell_before_the_catalogue() -> None:
    looked = NodeSnapshot("one", "", outlooks={"m": Outlook("m", True, capabilities=SEES)})
    asleep = NodeSnapshot("two", "")
    assert able.told_asleep(WRITES, [looked, asleep], "m") == tuple(SEES)
    assert able.told_asleep(WRITES, [asleep], "m") == WRITES
    assert able.told_by(looked, "m") == SEES
