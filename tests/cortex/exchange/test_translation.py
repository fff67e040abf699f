"""The seam for dialects that nodes do not speak."""

from __future__ import annotations

import json

import pytest
from tests.cortex.exchange.rig import MODEL, PLAIN, answers, fleet, refuses
from tests.cortex.fake_node import Turn

from helexa.core.errors import InvalidRequestBody
from helexa.cortex.exchange.route import Route, Translation

pytestmark = pytest.mark.anyio


class Shouted:
    """A dialect for the hard of hearing."""

    def events(self, data: bytes) -> bytes:
        return data.upper()

    def finish(self, comment: bytes) -> bytes:
        return comment + b"data: OVER\n\n"

    def plain(self, body: bytes) -> bytes:
        return body.upper()


def translate(body: bytes) -> tuple[bytes, Translation]:
    asked = json.loads(body)
    if "whisper" in asked:
        raise InvalidRequestBody("Speak up.", param="whisper")
    chat = {"model": asked["shout_at"], "stream": asked.get("stream", False), "messages": []}
    return json.dumps(chat | {"pad": asked.get("pad", "")}).encode(), Shouted()


SHOUT = Route("shout", b"/v1/chat/completions", dialect="anthropic", translate=translate)


@pytest.mark.parametrize("pad", [0, 300_000])
async def test_a_plain_request_is_translated_both_ways(pad: int) -> None:
    async with fleet(answers) as (gateway, [node]):
        gateway.rooms.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"shout_at": MODEL, "pad": "x" * pad}, path="/shout")
        assert got.body == json.dumps(PLAIN).upper().encode()
        assert node.turns[0].body["model"] == MODEL
        await gateway.settled()
        assert gateway.log.lines[0].completion == 2


async def test_a_stream_is_translated_event_by_event_with_its_usage_and_its_own_end() -> None:
    async with fleet(answers) as (gateway, _):
        gateway.rooms.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"shout_at": MODEL, "stream": True}, path="/shout")
        assert b'"CONTENT":"HELLO"' in got.body
        assert b'"COMPLETION_TOKENS":2' in got.body
        assert b"[DONE]" not in got.body
        assert got.body.endswith(b"data: OVER\n\n")
        assert b": helexa {" in got.body


async def test_what_cannot_be_translated_is_refused_in_the_dialect() -> None:
    async with fleet(answers) as (gateway, [node]):
        gateway.rooms.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"whisper": 1}, path="/shout")
        assert got.status == 400
        assert json.loads(got.body)["type"] == "error"
        assert not node.turns


async def test_the_next_candidate_is_asked_in_chat_too() -> None:
    async def second(turn: Turn) -> None:
        await answers(turn)

    async with fleet(refuses(503, "overloaded"), second) as (gateway, nodes):
        gateway.rooms.app._routes[b"/shout"] = SHOUT
        for _ in range(2):
            got = await gateway.ask({"shout_at": MODEL, "stream": True}, path="/shout")
            assert got.body.endswith(b"data: OVER\n\n")
        assert all(turn.body["model"] == MODEL for node in nodes for turn in node.turns)
