"""Pictures that tests send: made here, so their colours and sizes are known."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)

JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1td"
    "hbWGkJ6jq62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    "pKSkpKSkpKSkpKSkpKSkpKSkpKT/wAARCAAIABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAT/xAAUEAEA"
    "AAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAwX/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIR"
    "AxEAPwCIAaw//9k="
)
GIF = base64.b64decode(
    "R0lGODdhEAAIAIEAAMgePAAAAAAAAAAAACwAAAAAEAAIAAAIFQABCBxIsKDBgwgTKlzIsKHDhwgDAgA7"
)
WEBP = base64.b64decode("UklGRi4AAABXRUJQVlA4ICIAAABwAQCdASoQAAgADMDOJaACdAFAAAD+144MPUrfroogAAAA")
"""16 × 8 pixels each."""


def png(width: int = 56, height: int = 56, colour: tuple[int, int, int] = RED) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    """A BMP, black, its rows from the top."""
    size = width * height * 3
    head = struct.pack("<IHHI", 54 + size, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, size, 0, 0, 0, 0)
    return b"BM" + head + info + bytes(size)


def data_url(image: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def part(image: bytes | str, **more: Any) -> dict[str, Any]:
    """A part of a chat message."""
    url = image if isinstance(image, str) else data_url(image)
    return {"type": "image_url", "image_url": {"url": url, **more}}
