"""``helexa fleet status`` for people."""

from __future__ import annotations

from helexa.cli.fleet import lines


def test_a_node_that_does_not_answer_is_shown_with_the_reason() -> None:
    node = {
        "name": "attic",
        "endpoint": "http://attic.lan:13131",
        "state": "unreachable",
        "strikes": 8,
        "error": "The node answered with status 401. The fleet secret differs.",
    }
    assert lines({"nodes": [node]})[:2] == [
        "attic  http://attic.lan:13131  unreachable, 8 polls missed",
        "  ! The node answered with status 401. The fleet secret differs.",
    ]
