"""What clients make of a base URL."""

from __future__ import annotations

import pytest

from helexa.wire.paths import client_path


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
