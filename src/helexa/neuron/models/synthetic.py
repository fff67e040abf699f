"""Models of random weights in any shape: what a shape costs can be measured before its weights
are fetched, and benchmarks and tests need no download.

The answers are noise, but memory, prefill and decode speed are those of a real model of the same
shape. The tokenizer is a byte-level one with filler tokens up to the wanted vocabulary.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from helexa.neuron.models.ggml import FILE_TYPES, TYPES

TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QUANTS = ("Q8_0", "Q4_0", "BF16", "F16", "F32")
_ALIGNMENT = 32
_PIECE = 1 << 20
_SCALE = struct.pack("<e", 0.001)
_SMALL = {  # the high byte of a number around 0.02, whatever noise it was: sign and exponent
    "F16": bytes((b & 0x80) | 0x20 | (b & 0x03) for b in range(256)),
    "BF16": bytes((b & 0x80) | 0x3C for b in range(256)),
}


class Shape(msgspec.Struct, frozen=True):
    """A dense model of the Qwen3 architecture; ``quant`` is one of ``QUANTS``."""

    layers: int = 28
    embedding: int = 1024
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    feed_forward: int = 3072
    vocab: int = 151_936
    context: int = 40_960
    quant: str = "Q8_0"
    template: str = TEMPLATE


QWEN3_0_6B = Shape()


def write_model(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a loadable GGUF of random weights.

    Args:
        path: The file to write; its folder exists.
        shape: What it looks like.
        seed: Same seed, same bytes.

    Returns:
        ``path``.
    """
    tensors = list(_tensors(shape))
    with path.open("wb") as file:
        metadata = _metadata(shape)
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(string(key) + typed(value))
        offset = 0
        for name, extents, kind in tensors:
            file.write(tensor_info(name, extents, kind, offset))
            offset += _padded(_bytes(extents, kind))
        file.write(bytes(-file.tell() % _ALIGNMENT))
        _write_data(file, tensors, random.Random(seed))
    return path


def string(text: str) -> bytes:
    """A GGUF string."""
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value: object) -> bytes:
    """A GGUF value with its type: bool, int (u32), float (f32), str, or a list of int or str."""
    if isinstance(value, list):
        if value and isinstance(value[0], int):  # llama.cpp wants token types signed
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(string(item) for item in value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + string(str(value))


def tensor_info(name: str, extents: tuple[int, ...], kind: str, offset: int) -> bytes:
    """A GGUF tensor entry."""
    number = next(n for n, t in TYPES.items() if t.name == kind)
    dims = struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
    return string(name) + dims + struct.pack("<IQ", number, offset)


def _metadata(shape: Shape) -> dict[str, object]:
    return {
        "general.architecture": "qwen3",
        "general.name": "random",
        "general.file_type": next(n for n, name in FILE_TYPES.items() if name == shape.quant),
        "qwen3.context_length": shape.context,
        "qwen3.embedding_length": shape.embedding,
        "qwen3.block_count": shape.layers,
        "qwen3.feed_forward_length": shape.feed_forward,
        "qwen3.attention.head_count": shape.heads,
        "qwen3.attention.head_count_kv": shape.kv_heads,
        "qwen3.attention.key_length": shape.head_dim,
        "qwen3.attention.value_length": shape.head_dim,
        "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen3.rope.freq_base": 1e6,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": _vocabulary(shape.vocab),
        "tokenizer.ggml.token_type": [1] * (shape.vocab - 2) + [3, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": shape.vocab - 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": shape.template,
    }


def _vocabulary(size: int) -> list[str]:
    """GPT-2's 256 byte letters, ``ab``, fillers, and the two ChatML markers last."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]
    fillers = [f"filler{n}" for n in range(size - 259)]
    return [*letters, "ab", *fillers, "<|im_start|>", "<|im_end|>"]


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], str]]:
    wide, hidden = shape.heads * shape.head_dim, shape.embedding
    narrow = shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (hidden, shape.vocab), shape.quant
    yield "output_norm.weight", (hidden,), "F32"
    for layer in range(shape.layers):
        for name, extents in (
            ("attn_q", (hidden, wide)),
            ("attn_k", (hidden, narrow)),
            ("attn_v", (hidden, narrow)),
            ("attn_output", (wide, hidden)),
            ("ffn_gate", (hidden, shape.feed_forward)),
            ("ffn_up", (hidden, shape.feed_forward)),
            ("ffn_down", (shape.feed_forward, hidden)),
        ):
            yield f"blk.{layer}.{name}.weight", extents, shape.quant
        for name, extent in (
            ("attn_norm", hidden),
            ("ffn_norm", hidden),
            ("attn_q_norm", shape.head_dim),
            ("attn_k_norm", shape.head_dim),
        ):
            yield f"blk.{layer}.{name}.weight", (extent,), "F32"


def _bytes(extents: tuple[int, ...], kind: str) -> int:
    elements = 1
    for extent in extents:
        elements *= extent
    return next(t for t in TYPES.values() if t.name == kind).bytes_for(elements)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _write_data(
    file: BinaryIO, tensors: list[tuple[str, tuple[int, ...], str]], rng: random.Random
) -> None:
    # A megabyte of noise per type, repeated: drawing every weight would take minutes.
    pieces = {kind: _noise(kind, rng) for kind in {kind for _, _, kind in tensors}}
    for _, extents, kind in tensors:
        size, piece = _bytes(extents, kind), pieces[kind]
        for _ in range(size // len(piece)):
            file.write(piece)
        file.write(piece[: size % len(piece)])
        file.write(bytes(_padded(size) - size))


def _noise(kind: str, rng: random.Random) -> bytes:
    """About a megabyte of values around ±0.02 in whole blocks; F32 (norms, mostly) are ones."""
    if kind == "F32":
        return struct.pack("<f", 1.0) * (_PIECE // 4)
    if kind in _SMALL:
        values = bytearray(rng.randbytes(_PIECE))
        values[1::2] = values[1::2].translate(_SMALL[kind])
        return bytes(values)
    block = TYPES[{"Q8_0": 8, "Q4_0": 2}[kind]]
    return b"".join(_SCALE + rng.randbytes(block.size - 2) for _ in range(_PIECE // block.size))
