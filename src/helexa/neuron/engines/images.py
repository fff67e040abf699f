"""Images of a chat request: what they are is read from their first bytes, before any engine.

::

    part ─▶ address ─▶ base64 ─▶ kind, width × height ─▶ {"type": "image_url", …}
            data: only  whole     known, not cut off      one form for every engine

An engine would fetch an address that a client names, from inside the operator's network; would
hand what it does not know to other programs; and would unpack a small file into gigabytes. So an
address is refused, a file has to be one of the kinds that the engine decodes, and what it unpacks
to is bounded. Whether its pixels are sound only the engine finds out. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter, VisionUnsupported

Json = dict[str, Any]

TYPES = frozenset(("image_url", "input_image", "image"))
KINDS = ("png", "jpeg", "gif", "webp")
DETAILS = frozenset(("auto", "low", "high", "original"))
MOST_PIXELS = 64_000_000
"""Of all images of a request: 192 MB once unpacked. Providers take 8,000 × 8,000."""

_DATA = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_FETCHED = ("http://", "https://", "file://", "ftp://", "gs://", "s3://")


def any_image(messages: list[Json]) -> bool:
    """Whether checked messages hold one: then their bytes say nothing about their tokens."""
    return any(
        part.get("type") == "image_url"
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


class Picture(msgspec.Struct, frozen=True):
    """``kind`` is ``png``, ``jpeg``, ``gif``, ``bmp`` or ``webp``; sizes are pixels, 0 where the
    header does not say in a place that is read here."""

    kind: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """What it unpacks to."""
        return self.width * self.height


class BrokenImage(Exception):
    """Not an image, or not all of one; says which."""


@dataclass(slots=True)
class Images:
    """Checks the images of one request.

    Args:
        model_id: For messages.
        sees: The model has the vision capability.
        kinds: What its engine decodes.
        count, pixels: Of those seen so far.
    """

    model_id: str
    sees: bool
    kinds: tuple[str, ...] = KINDS
    count: int = 0
    pixels: int = 0

    def take(self, part: Json, path: str) -> None:
        """Check one part and bring it into the one form that engines read.

        Raises:
            VisionUnsupported: The model cannot see.
            UnsupportedParameter: An address, or a kind that is not decoded.
            InvalidRequestBody: No image, a broken one, or too large a one.
        """
        if not self.sees:
            raise VisionUnsupported(
                f"{self.model_id} cannot see images (`{path}`). Use a model with the vision "
                "capability.",
                param=path,
            )
        url, where = _address(part, path)
        detail = _detail(part, path)
        picture = self._picture(url, where)
        self.count += 1
        self.pixels += picture.pixels
        if self.pixels > MOST_PIXELS:
            raise InvalidRequestBody(
                f"`{where}` has {picture.width} × {picture.height} pixels; the images of a request "
                f"may have {MOST_PIXELS:,} in all. Send it smaller.",
                param=where,
            )
        image = {"url": url} if detail is None else {"url": url, "detail": detail}
        part.clear()
        part.update(type="image_url", image_url=image)

    def _picture(self, url: str, where: str) -> Picture:
        try:
            picture = measure(_data(url, where))
        except BrokenImage as broken:
            raise InvalidRequestBody(f"`{where}` {broken}.", param=where) from None
        if picture.kind not in self.kinds:
            *others, last = self.kinds
            raise UnsupportedParameter(
                f"`{where}` is a {picture.kind} image, which the engine of {self.model_id} does "
                f"not decode. Send {', '.join(others)} or {last}.",
                param=where,
            )
        return picture


def _address(part: Json, path: str) -> tuple[str, str]:
    """The URL of a part and where it stands, in each form that clients send."""
    given, where = part.get("image_url"), f"{path}.image_url"
    if isinstance(given, dict):
        given, where = given.get("url"), f"{where}.url"
    if given is None and isinstance(part.get("source"), dict):  # as Anthropic writes it
        source, where = part["source"], f"{path}.source"
        if source.get("type") == "base64" and isinstance(source.get("data"), str):
            given = f"data:{source.get('media_type') or 'image/png'};base64,{source['data']}"
        else:
            given = source.get("url")
    if not isinstance(given, str):
        raise InvalidRequestBody(
            f"`{path}` is an image without an address; send `image_url.url` as a data: URL.",
            param=where,
        )
    return given, where


def _detail(part: Json, path: str) -> str | None:
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, dict) else None
    detail = part.get("detail") if detail is None else detail
    if detail is not None and not (isinstance(detail, str) and detail in DETAILS):
        raise InvalidRequestBody(
            f"`detail` of `{path}` must be one of {', '.join(sorted(DETAILS))}.",
            param=f"{path}.detail",
        )
    return detail


def _data(url: str, where: str) -> bytes:
    """The bytes of a ``data:`` URL."""
    found = _DATA.match(url)
    if found is None:
        what = "an address, which is not fetched here" if _fetched(url) else "no base64 data: URL"
        raise UnsupportedParameter(
            f"`{where}` is {what}. Send the image itself as data:image/png;base64,…", param=where
        )
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise BrokenImage("is not valid base64") from None


def _fetched(url: str) -> bool:
    return url[:8].lower().startswith(_FETCHED)


def measure(data: bytes) -> Picture:
    """What kind of image it is and how large, from its header.

    Raises:
        BrokenImage: None that is known, or cut off.
    """
    for magic, read in _KINDS:
        if data.startswith(magic):
            try:
                return read(data)
            except (IndexError, ValueError):
                raise BrokenImage("is cut off") from None
    raise BrokenImage("is not an image that is known here (png, jpeg, gif)")


def _be(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(_exactly(data, at, size))


def _le(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(_exactly(data, at, size), "little")


def _exactly(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) < size:
        raise IndexError
    return found


def _png(data: bytes) -> Picture:
    """Chunks of length, type, data and sum, from IHDR to IEND."""
    at = 8
    while (kind := _exactly(data, at + 4, 4)) != b"IEND":
        if at == 8 and kind != b"IHDR":
            raise BrokenImage("is a damaged png image")
        at += 12 + _be(data, at, 4)
    return _sized("png", _be(data, 16, 4), _be(data, 20, 4))


_FRAMES = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))


def _jpeg(data: bytes) -> Picture:
    """Segments of marker, length and data, up to the frame; then pixels up to the end marker."""
    at = 2
    while True:
        if _be(data, at, 1) != 0xFF:
            raise BrokenImage("is a damaged jpeg image")
        marker = _be(data, at + 1, 1)
        if marker in _FRAMES:
            break
        if marker == 0xFF:
            at += 1
        else:
            at += 2 if marker in _ALONE else 2 + _be(data, at + 2, 2)
    if data.find(b"\xff\xd9", at) < 0:
        raise IndexError
    return _sized("jpeg", _be(data, at + 7, 2), _be(data, at + 5, 2))


def _gif(data: bytes) -> Picture:
    return _sized("gif", _le(data, 6, 2), _le(data, 8, 2))


def _bmp(data: bytes) -> Picture:
    height = _le(data, 22, 4)
    return _sized("bmp", _le(data, 18, 4), min(height, (1 << 32) - height))  # < 0: from the top


def _webp(data: bytes) -> Picture:
    """Only the extended header says its size in plain bytes."""
    if data[8:12] != b"WEBP":
        raise BrokenImage("is not an image that is known here (png, jpeg, gif)")
    if len(data) < 8 + _le(data, 4, 4):
        raise IndexError
    if data[12:16] == b"VP8X":
        return _sized("webp", 1 + _le(data, 24, 3), 1 + _le(data, 27, 3))
    if data[12:16] == b"VP8L":
        bits = _le(data, 21, 4)
        return _sized("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    return _sized("webp", _le(data, 26, 2) & 0x3FFF, _le(data, 28, 2) & 0x3FFF)


def _sized(kind: str, width: int, height: int) -> Picture:
    if not width or not height:
        raise BrokenImage(f"is a damaged {kind} image: {width} × {height} pixels")
    return Picture(kind, width, height)


_KINDS: tuple[tuple[bytes, Callable[[bytes], Picture]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
