"""Events are the same however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.cortex.fleet import sse
from helexa.cortex.fleet.sse import EventReader, ServerEvent

BYTES = (
    b": keep-alive\n\n"
    b'id: 7-1\nevent: snapshot\ndata: {"a":\ndata: 1}\n\n'
    b"data:x\r\n\r\n"
    b"event: nothing\n\n"
    b"data: \xc3\xa9\nretry: 5\n\n"
    b"data: unfinished"
)
EVENTS = [
    ServerEvent("7-1", b'{"a":\n1}'),
    ServerEvent(None, b"x"),
    ServerEvent(None, b"\xc3\xa9"),
]


@given(cuts=st.lists(st.integers(0, len(BYTES))))
def test_any_chunking_gives_the_same_events(cuts: list[int]) -> None:
    reader, found = EventReader(), []
    edges = [0, *sorted(cuts), len(BYTES)]
    for start, stop in pairwise(edges):
        found += reader.feed(BYTES[start:stop])
    assert found == EVENTS


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIMIT", 100)
    reader = EventReader()
    reader.feed(b"x" * 100)
    with pytest.raises(ValueError, match="100 bytes"):
        reader.feed(b"x")
