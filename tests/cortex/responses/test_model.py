"""SQLite's shelf does what memory's does, whatever is asked of it."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cortex.responses.conftest import Clock

from helexa.cortex.ledger.database import connect
from helexa.cortex.responses.base import Kept, KeptItem, Shelf
from helexa.cortex.responses.memory import MemoryShelf
from helexa.cortex.responses.sql import SqlShelf

_OWNERS = st.sampled_from(["one", "two"])
_NAMES = st.sampled_from("abcdef")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _OWNERS, st.none() | _NAMES),
        st.tuples(st.just("delete"), _OWNERS, _NAMES),
        st.tuples(st.just("wait"), st.integers(1, 60), st.none()),
        st.tuples(st.just("look"), _OWNERS, _NAMES),
    ),
    max_size=16,
)


def look(shelf: Shelf, owner: str, name: str) -> Any:
    found = shelf.find(owner, name), shelf.inputs(owner, name), shelf.history(owner, name)
    return found, shelf.named(owner, [f"in_{name}", f"out_{name}"])


@settings(max_examples=15, deadline=None)
@given(_STEPS)
def test_both_shelves_answer_alike(steps: list[tuple[str, Any, Any]]) -> None:
    clock, names, fresh = Clock(), {}, iter("abcdef")
    with tempfile.TemporaryDirectory() as folder:
        memory = MemoryShelf(clock, ttl_s=100, max_bytes=10_000)
        sql = SqlShelf(connect(f"sqlite://{folder}/r.db"), clock, ttl_s=100, max_bytes=10_000)
        shelves: tuple[Shelf, Shelf] = (memory, sql)
        for kind, who, what in steps:
            if kind == "wait":
                clock.at += who
            elif kind == "put":
                name = next(fresh, None)
                if name is None:
                    continue
                names[name] = who
                items = (KeptItem(f"in_{name}", output=False, body=b"1"),
                         KeptItem(f"out_{name}", output=True, body=b"2"))  # fmt: skip
                for shelf in shelves:
                    shelf.put(who, Kept(name, what, clock(), b'"x"', items))
            elif kind == "delete":
                assert memory.delete(who, what) == sql.delete(who, what)
            else:
                assert look(memory, who, what) == look(sql, who, what)
        sql.close()
