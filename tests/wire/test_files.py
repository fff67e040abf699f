"""Files that come inside a request."""

from __future__ import annotations

import base64

import pytest

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.files import file_text


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("head", ["", "data:text/plain;base64,", "data:application/json;base64,"])
def test_a_text_is_shown_under_its_name_whatever_its_type_is_called(head: str) -> None:
    assert file_text(head + b64("für {}".encode()), "a.json", "p") == "a.json\nfür {}"
    assert file_text(head + b64(b"\xef\xbb\xbfhi"), None, "p") == "hi"


@pytest.mark.parametrize("raw", [b"%PDF-1.7 all of it ASCII", b"{\\rtf1 a}", b"PK\0\3", b"\xff"])
def test_what_is_no_text_is_refused_by_its_path(raw: bytes) -> None:
    with pytest.raises(UnsupportedParameter, match="is not text") as refused:
        file_text("data:text/plain;base64," + b64(raw), "a.txt", "messages[0].content[1]")
    assert refused.value.param == "messages[0].content[1]"


def test_what_is_not_there_or_no_base64_is_refused_by_its_path() -> None:
    with pytest.raises(UnsupportedParameter, match="neither kept nor fetched") as refused:
        file_text(None, "a.txt", "p")
    assert refused.value.param == "p"
    with pytest.raises(InvalidRequestBody, match="base64") as broken:
        file_text("plain text, ä", None, "p")
    assert broken.value.param == "p"
