"""The seam for dialects that nodes do not speak."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from tests.cortex.exchange.rig import MODEL, PLAIN, answers, delta, event, fleet, refuses
from tests.cortex.fake_node import Turn

from helexa.core.errors import HelexaError, InvalidRequestBody
from helexa.cortex.exchange.route import Asked, Route
from helexa.wire.messages.dialect import translate_messages
from helexa.wire.translation import Translation

pytestmark = pytest.mark.anyio


class Shouted(Translation):
    """A dialect for the hard of hearing."""

    def begin(self, model: str) -> None:
        assert model == MODEL

    def keep_alive(self) -> bytes:
        return b": STILL HERE\n\n"

    def fail(self, error: HelexaError, request_id: str) -> bytes:
        return f"data: {error.code} {request_id}\n\n".upper().encode()

    def events(self, data: bytes) -> bytes:
        return data.upper()

    def finish(self, comment: bytes) -> bytes:
        return comment + b"data: OVER\n\n"

    def plain(self, body: bytes) -> bytes:
        return body.upper()


def translate(asked: Asked) -> Translation:
    body = json.loads(asked.body)
    if "whisper" in body:
        raise InvalidRequestBody("Speak up.", param="whisper")
    chat = {"model": body["shout_at"], "stream": body.get("stream", False), "messages": []}
    raw = json.dumps(chat | {"pad": body.get("pad", "")}).encode()
    return Shouted(raw, translate_messages(_MESSAGES, asked.request_id)._renderer)


async def fetched(asked: Asked) -> Translation:
    """For a dialect that has something to look up first."""
    await asyncio.sleep(0)
    return translate(asked)


_MESSAGES = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
SHOUT = Route("shout", b"/v1/chat/completions", dialect="anthropic", translate=translate)


@pytest.mark.parametrize("pad", [0, 300_000])
async def test_a_plain_request_is_translated_both_ways(pad: int) -> None:
    async with fleet(answers) as (gateway, [node]):
        gateway.front.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"shout_at": MODEL, "pad": "x" * pad}, path="/shout")
        assert got.body == json.dumps(PLAIN).upper().encode()
        assert node.turns[0].body["model"] == MODEL
        await gateway.settled()
        assert gateway.log.lines[0].completion == 2


async def test_a_stream_is_translated_event_by_event_with_its_usage_and_its_own_end() -> None:
    async with fleet(answers) as (gateway, _):
        gateway.front.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"shout_at": MODEL, "stream": True}, path="/shout")
        assert b'"CONTENT":"HELLO"' in got.body
        assert b'"COMPLETION_TOKENS":2' in got.body
        assert b"[DONE]" not in got.body
        assert got.body.endswith(b"data: OVER\n\n")
        assert b": helexa {" in got.body


async def test_what_cannot_be_translated_is_refused_in_the_dialect() -> None:
    async with fleet(answers) as (gateway, [node]):
        gateway.front.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask({"whisper": 1}, path="/shout")
        assert got.status == 400
        assert json.loads(got.body)["type"] == "error"
        assert not node.turns


async def test_the_next_candidate_is_asked_in_chat_too() -> None:
    async def second(turn: Turn) -> None:
        await answers(turn)

    async with fleet(refuses(503, "overloaded"), second) as (gateway, nodes):
        gateway.front.app._routes[b"/shout"] = SHOUT
        for _ in range(2):
            got = await gateway.ask({"shout_at": MODEL, "stream": True}, path="/shout")
            assert got.body.endswith(b"data: OVER\n\n")
        assert all(turn.body["model"] == MODEL for node in nodes for turn in node.turns)


async def test_a_dialect_may_have_to_look_something_up_first() -> None:
    async with fleet(answers) as (gateway, _):
        gateway.front.app._routes[b"/shout"] = replace(SHOUT, translate=fetched)
        got = await gateway.ask({"shout_at": MODEL}, path="/shout")
        assert got.body == json.dumps(PLAIN).upper().encode()
        refused = await gateway.ask({"whisper": 1}, path="/shout")
        assert refused.status == 400


async def test_a_late_failure_is_said_in_the_dialect() -> None:
    async def breaks(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        turn.send(event({"error": {"message": "no", "code": "overloaded"}}))
        turn.close()
        turn.ended("failed")

    async with fleet(breaks) as (gateway, _):
        gateway.front.app._routes[b"/shout"] = SHOUT
        got = await gateway.ask(
            {"shout_at": MODEL, "stream": True}, path="/shout", x_request_id="mine"
        )
        assert got.body.endswith(b"DATA: OVERLOADED MINE\n\n")
