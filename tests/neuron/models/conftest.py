"""Small GGUF files, made on the spot."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from helexa.neuron.models.synthetic import string, tensor_info, typed


class MakeGguf(Protocol):
    def __call__(
        self,
        name: str = "model.gguf",
        /,
        *,
        metadata: dict[str, object] | None = None,
        tensors: dict[str, tuple[tuple[int, ...], str]] | None = None,
        data: int | None = None,
        version: int = 3,
    ) -> Path: ...


def basics(architecture: str, **keys: object) -> dict[str, object]:
    """Metadata of a plausible model; ``attention__head_count=4`` sets the key with a dot."""
    stated = {
        "block_count": 4,
        "context_length": 2048,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    own = {f"{architecture}.{key}": value for key, value in stated.items()}
    return {"general.architecture": architecture, **own}


@pytest.fixture
def make_gguf(tmp_path: Path) -> MakeGguf:
    def make(
        name: str = "model.gguf",
        /,
        *,
        metadata: dict[str, object] | None = None,
        tensors: dict[str, tuple[tuple[int, ...], str]] | None = None,
        data: int | None = None,
        version: int = 3,
    ) -> Path:
        listed = tensors or {"token_embd.weight": ((64, 8), "F32")}
        pairs = basics("qwen3") if metadata is None else metadata
        head = b"GGUF" + struct.pack("<IQQ", version, len(listed), len(pairs))
        head += b"".join(string(key) + typed(value) for key, value in pairs.items())
        offset = 0
        for tensor, (shape, kind) in listed.items():
            head += tensor_info(tensor, shape, kind, offset)
            elements = 1
            for extent in shape:
                elements *= extent
            size = elements * 4 if kind == "F32" else elements // 32 * 34
            offset += -(-size // 32) * 32
        head += bytes(-len(head) % 32)
        path = tmp_path / name
        path.write_bytes(head + bytes(offset if data is None else data))
        return path

    return make


@pytest.fixture
def model_metadata() -> Callable[..., dict[str, object]]:
    return basics
