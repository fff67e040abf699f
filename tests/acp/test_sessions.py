"""Sessions on disk, of this version and of others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from helexa.acp.sessions import store as module
from helexa.acp.sessions.session import Saved
from helexa.acp.sessions.store import NoSession, SessionStore
from helexa.core.chat import Message, Text

FIRST = b"""{"id":"abc","cwd":"/work","roots":[],"model":"m",
"messages":[{"role":"user","content":[{"type":"text","text":"hello"}],"tool_calls":[],
"reasoning":"","tool_call_id":null,"name":null}],"log":[]}"""
"""A session as the first version left it: words of this test, that no change of the code changes;
it does not say which version it is of."""


def session() -> Saved:
    return Saved("abc", "/work", [], "m", messages=[Message("user", (Text("hello"),))])


def test_a_session_of_the_first_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "abc.json").write_bytes(FIRST)
    assert SessionStore(tmp_path).load("abc") == session()


def test_a_session_of_a_newer_version_says_so_and_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SessionStore(tmp_path)
    with monkeypatch.context() as newer:
        newer.setattr(module, "VERSION", 2)
        store.save(session())
        assert store.load("abc").messages == session().messages
    written = (tmp_path / "abc.json").read_bytes()
    with pytest.raises(NoSession, match="written by a newer helexa; use that one, or begin a new"):
        store.load("abc")
    assert [head.id for head in store.heads(None)] == ["abc"]
    # Whatever form its messages have by then.
    other = msgspec.json.encode(msgspec.json.decode(written) | {"messages": {"by": "id"}})
    (tmp_path / "abc.json").write_bytes(other)
    with pytest.raises(NoSession, match="newer helexa"):
        store.load("abc")
