"""Who sends is worked out once per head, and again whenever it may have changed."""

from __future__ import annotations

import pytest
from tests.cortex.exchange.rig import KEYS, answers, fleet, request
from tests.relay.rig import client

from helexa.core.errors import InvalidApiKey
from helexa.core.principal import Principal
from helexa.cortex.auth import KeyIndex, KeyTable, Known
from helexa.cortex.exchange.sender import sender_of
from helexa.relay.request import Head

WHO = Principal("acme", "one")
DIGEST = bytes.fromhex("2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")  # secret


def head(path: bytes = b"/", secret: bytes = b"secret", **more: bytes) -> Head:
    headers = {b"authorization": b"Bearer " + secret}
    headers |= {name.replace("_", "-").encode(): value for name, value in more.items()}
    return Head(b"POST", path, headers)


def table(now: list[float], ends: float | None = None) -> KeyTable:
    keys = KeyTable([], required=True, now=lambda: now[0])
    keys.replace(KeyIndex([Known(DIGEST, WHO, ends)]))
    return keys


def test_the_same_head_has_the_same_sender() -> None:
    keys, one = table([0.0]), head()
    sender = sender_of(one, keys)
    assert sender.principal == WHO
    assert sender_of(one, keys) is sender
    assert sender_of(head(), keys) is not sender
    assert sender.lines == b"x-helexa-account-id: acme\r\nx-helexa-key-id: one\r\n"


def test_a_changed_key_table_is_asked_at_once() -> None:
    keys, one = table([0.0]), head()
    sender_of(one, keys)
    keys.replace(KeyIndex([]))
    with pytest.raises(InvalidApiKey):
        sender_of(one, keys)


def test_a_secret_that_ends_is_refused_from_then_on() -> None:
    now, one = [0.0], head()
    keys = table(now, ends=1.0)
    sender = sender_of(one, keys)
    now[0] = 0.999
    assert sender_of(one, keys) is sender
    now[0] = 1.0
    with pytest.raises(InvalidApiKey):
        sender_of(one, keys)


def test_thinking_is_the_heads_too() -> None:
    for path, line in (
        (b"/v1/chat/completions", b"x-include-thinking: true\r\n"),
        (b"/v1/messages", b"x-helexa-thinking: on\r\n"),
    ):
        sender = sender_of(head(path, x_include_thinking=b"True"), table([0.0]))
        assert sender.lines.endswith(line)


@pytest.mark.anyio
async def test_a_revoked_key_is_refused_on_the_connection_it_came_by() -> None:
    config = "[entitlements]\nrequire_auth = true\n" + KEYS
    async with fleet(answers, config=config) as (gateway, _), client(gateway.port) as raw:
        statuses = []
        for revoke in (False, False, True, False):
            if revoke:
                gateway.front.app._desk.keys.replace(KeyIndex([]))
            raw.send(request(authorization="Bearer sk-a"))
            statuses.append((await raw.answer()).status)
        assert statuses == [200, 200, 401, 401]
