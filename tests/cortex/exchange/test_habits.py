"""What the catalogue says of a model reaches its nodes with every request."""

from __future__ import annotations

import json

import pytest
from tests.cortex.exchange.rig import MODEL, answers, fleet

pytestmark = pytest.mark.anyio

ENTRY = f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\n'
ROTATES = "session: a1b2c3d4e5\n\nYou are an agent."
ASK = {"messages": [{"role": "system", "content": ROTATES}, {"role": "user", "content": "hi"}]}


async def test_a_rotating_first_line_moves_where_the_catalogue_says_so_and_is_marked() -> None:
    async with fleet(answers, models=ENTRY + "stabilise_prefix = true\n") as (gateway, [node]):
        got = await gateway.ask(ASK, x_request_id="mine")
        assert got.status == 200
        system = node.turns[0].body["messages"][0]["content"]
        assert system == "You are an agent.\n\nsession: a1b2c3d4e5"
        told = await gateway.get("/v1/requests/mine")
        assert told["prefix"] == {"reused": 0, "of": 7, "differs_at": 0, "first_line": "moved"}


async def test_without_that_word_not_a_byte_is_changed() -> None:
    async with fleet(answers, models=ENTRY) as (gateway, [node]):
        body = json.dumps({"model": MODEL, **ASK}, indent=1).encode()
        await gateway.ask(body, x_request_id="mine")
        assert node.turns[0].raw == body
        assert "first_line" not in (await gateway.get("/v1/requests/mine"))["prefix"]


async def test_a_model_thinks_by_default_where_the_catalogue_says_so() -> None:
    for word, told in (("on", "on"), ("off", None)):
        models = f'{ENTRY}thinking = "{word}"\n'
        async with fleet(answers, models=models) as (gateway, [node]):
            await gateway.ask(ASK, x_helexa_thinking="on")
            assert node.turns[0].headers.get("x-helexa-thinking") == told
