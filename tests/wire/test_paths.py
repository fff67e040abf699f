"""What clients make of a base URL."""

from __future__ import annotations

import pytest

from helexa.wire.paths import client_path, meant_path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("//v1/models/a//b", "/v1/models/a//b"),
        ("/v1/messages/", "/v1/messages"),
        ("/v1/models/", "/v1/models"),
        ("/v1/", "/v1"),
        ("/chat/completions", "/chat/completions"),
        ("/admin/keys/", "/admin/keys/"),
        ("//admin/keys", "//admin/keys"),
        ("/v1", "/v1"),
        ("/v10/models", "/v10/models"),
    ],
)
def test_a_doubled_prefix_or_a_slash_too_many_is_mended(path: str, meant: str) -> None:
    assert client_path(path) == meant


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/v1/chat%2Fcompletions", b"/v1/chat/completions"),
        (b"/v1/v1/%63hat/completions/", b"/v1/chat/completions"),
        (b"/v1/models/caf%c3%a9%ff%zz", b"/v1/models/caf\xc3\xa9\xff%zz"),
    ],
)
def test_an_escaped_path_is_the_same_path(path: bytes, meant: bytes) -> None:
    assert meant_path(path) == meant
