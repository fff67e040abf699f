"""What is read of an image before an engine gets it."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pictures import GIF, JPEG, WEBP, bmp, data_url, part, png

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter, VisionUnsupported
from helexa.neuron.engines.images import MOST_PIXELS, BrokenImage, Images, any_image, measure


def taken(given: dict[str, Any], images: Images | None = None) -> dict[str, Any]:
    (images or Images("org/m", sees=True)).take(given, "messages[0].content[1]")
    return given


@pytest.mark.parametrize(
    ("data", "kind"), [(png(16, 8), "png"), (JPEG, "jpeg"), (GIF, "gif"), (bmp(16, 8), "bmp"),
                       (WEBP, "webp")],
)  # fmt: skip
def test_kind_and_size_are_read_from_the_bytes_whatever_the_url_says(
    data: bytes, kind: str
) -> None:
    found = measure(data)
    assert (found.kind, found.width, found.height, found.pixels) == (kind, 16, 8, 128)
    images = Images("org/m", sees=True, kinds=(kind,))
    assert taken(part(data_url(data, "application/octet-stream")), images)["type"] == "image_url"
    assert (images.count, images.pixels) == (1, 128)


@pytest.mark.parametrize("data", [png(16, 8), JPEG, WEBP])
def test_an_image_that_is_cut_off_anywhere_is_broken(data: bytes) -> None:
    for end in range(0, len(data), 7):
        with pytest.raises(BrokenImage):
            measure(data[:end])


@given(st.binary(max_size=200), st.sampled_from([png(2, 2)[:8], JPEG[:3], GIF[:6], b"RIFF", b"BM"]))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes, magic: bytes) -> None:
    for given_bytes in (data, magic + data):
        with contextlib.suppress(BrokenImage):
            measure(given_bytes)


def test_every_form_of_an_image_becomes_one() -> None:
    url = data_url(png(2, 2))
    source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    forms: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url},
        {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}},
    ]
    for form in forms:
        assert taken(form) == part(url)
    assert taken({"type": "input_image", "image_url": url, "detail": "low"}) == part(
        url, detail="low"
    )
    assert taken(part(url, detail="high")) == part(url, detail="high")


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"type": "image_url"}, "image_url", "without an address"),
        ({"type": "image_url", "image_url": {"url": 5}}, "image_url.url", "without an address"),
        (part(data_url(b"nonsense")), "image_url.url", "not an image that is known"),
        (part("data:image/png;base64,***"), "image_url.url", "not valid base64"),
        (part(data_url(png()[:-20])), "image_url.url", "is cut off"),
        (part(png(), detail="much"), "detail", "must be one of"),
        (part(png(), detail=["low"]), "detail", "must be one of"),
        ({"type": "image", "source": {"type": "base64", "data": "QUJD"}}, "source", "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_its_path(
    given: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        taken(given)
    assert refused.value.param == f"messages[0].content[1].{param}"
    assert words in refused.value.message


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.png", "https://example.org/a.png", "file:///etc/passwd",
            "/etc/passwd", "HTTP://x", "ftp://x/y", "data:,hello"],
)  # fmt: skip
def test_an_address_is_never_fetched_but_refused(url: str) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        taken(part(url))
    assert "data:image/png;base64" in refused.value.message


def test_a_kind_that_the_engine_does_not_decode_is_refused_and_those_named_that_it_does() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        taken(part(data_url(WEBP, "image/png")), Images("org/m", sees=True, kinds=("png", "jpeg")))
    assert "Send png or jpeg." in refused.value.message


def test_a_small_file_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = bytearray(png(8, 8))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(InvalidRequestBody) as refused:
        taken(part(bytes(bomb)))
    assert "60000 × 60000" in refused.value.message


def test_all_images_of_a_request_are_bounded_together() -> None:
    half = bytearray(png(8, 8))
    half[16:24] = struct.pack(">II", 8000, MOST_PIXELS // 8000 // 2 + 1)
    images = Images("org/m", sees=True)
    taken(part(bytes(half)), images)
    with pytest.raises(InvalidRequestBody):
        taken(part(bytes(half)), images)


def test_a_model_that_cannot_see_says_so_before_anything_is_read() -> None:
    with pytest.raises(VisionUnsupported) as refused:
        taken({"type": "image_url"}, Images("org/m", sees=False))
    assert refused.value.param == "messages[0].content[1]"


def test_images_are_found_in_checked_messages() -> None:
    text = {"role": "user", "content": "image_url"}
    assert not any_image([text, {"role": "user", "content": [{"type": "text", "text": "x"}]}])
    assert any_image([text, {"role": "tool", "content": [part(png())]}])
