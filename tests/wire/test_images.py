"""Images are found in a body that nobody decodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.pictures import data_url, part, png

from helexa.wire.images import first_image, images


def body(*parts: Any, **members: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(parts)}], **members}).encode()


def test_images_and_their_bytes_are_counted_without_decoding() -> None:
    url, text = data_url(png()), {"type": "text", "text": "x" * 100}
    plain = body(text)
    assert images(plain).number == 0
    for count in (1, 3):
        raw = body(text, *[part(url)] * count)
        found = images(raw)
        assert found.number == count
        assert len(raw) - found.size < len(plain) + count * 100
        assert found.size == count * (len(url) - len("data:image/png"))


def test_words_about_images_are_no_images() -> None:
    talk = 'say {"type": "image_url"} or data:image/png;base64'
    tool = {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"image_url": {"type": "string"}}}}}  # fmt: skip
    assert images(body({"type": "text", "text": talk}, tools=[tool])).number == 0


def test_the_first_image_is_found_with_its_path() -> None:
    text, image = {"type": "text", "text": "x"}, part(png())
    messages = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [text, image]},
    ]
    assert first_image(json.dumps(messages).encode()) == "messages[2].content[1]"
    assert first_image(json.dumps(messages[:2]).encode()) is None


@pytest.mark.parametrize("odd", [b"", b"[", b"5", b'[{"content": 5}]', b'[{"content": ["x"]}]'])
def test_what_is_no_list_of_messages_has_no_images(odd: bytes) -> None:
    assert first_image(odd) is None
