"""Models of random weights as safetensors folders, for engines that read those.

The counterpart of ``synthetic``: the same shapes in bfloat16, with the built-in model's tokenizer
and template, its vocabulary filled up with words.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from helexa import spark
from helexa.neuron.models.synthetic import Shape

_COPIED = ("chat_template.jinja", "generation_config.json", "tokenizer_config.json")
_ELEMENT = 2  # bytes of a bfloat16
_PIECE = (1 << 20) + 6  # no multiple of a row: rows that were alike would answer alike
_ONE = struct.pack("<H", 0x3F80)
# The high byte of a bfloat16 is its sign and seven bits of its exponent.
_USUAL = bytes((byte & 0x80) | 0x3C for byte in range(256))  # around ±0.016
_FAINT = bytes((byte & 0x80) | 0x38 for byte in range(256))  # around ±0.00006


def write_folder(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a loadable folder.

    Its answers are words of the filler: the tokenizer's own tokens have fainter rows, so that
    none of them, a byte of a character among them, is ever the likeliest.

    Args:
        folder: Made if it is not there.
        shape: What it looks like; of its own are ``quant`` and ``template``, which are not used.
        seed: Same seed, same bytes.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copy(spark.safetensors_dir() / name, folder / name)
    known = _write_tokenizer(folder / "tokenizer.json", shape.vocab)
    (folder / "config.json").write_bytes(msgspec.json.encode(_config(shape)))
    with (folder / "model.safetensors").open("wb") as file:
        _write_weights(file, shape, known, random.Random(seed))
    return folder


def _read(name: str) -> Any:
    return msgspec.json.decode((spark.safetensors_dir() / name).read_bytes())


def _write_tokenizer(path: Path, size: int) -> int:
    """The built-in model's, with fillers behind; how many tokens are its own."""
    tokenizer = _read("tokenizer.json")
    known: int = 1 + max(token["id"] for token in tokenizer["added_tokens"])
    fillers = {f"Ġw{number}": number for number in range(known, size)}
    tokenizer["model"]["vocab"] |= fillers
    path.write_bytes(msgspec.json.encode(tokenizer))
    return known


def _config(shape: Shape) -> dict[str, Any]:
    config: dict[str, Any] = _read("config.json")
    return config | {
        "head_dim": shape.head_dim,
        "hidden_size": shape.embedding,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "max_window_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rope_theta": 1_000_000.0,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocab,
    }


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and extents, rows first; one extent is a norm's."""
    hidden, wide = shape.embedding, shape.heads * shape.head_dim
    narrow = shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocab, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(shape.layers):
        for name, extents in (
            ("self_attn.q_proj", (wide, hidden)),
            ("self_attn.k_proj", (narrow, hidden)),
            ("self_attn.v_proj", (narrow, hidden)),
            ("self_attn.o_proj", (hidden, wide)),
            ("mlp.gate_proj", (shape.feed_forward, hidden)),
            ("mlp.up_proj", (shape.feed_forward, hidden)),
            ("mlp.down_proj", (hidden, shape.feed_forward)),
            ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
            ("self_attn.q_norm", (shape.head_dim,)),
            ("self_attn.k_norm", (shape.head_dim,)),
        ):
            yield f"model.layers.{layer}.{name}.weight", extents


def _write_weights(file: BinaryIO, shape: Shape, known: int, rng: random.Random) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, extents in _tensors(shape):
        begin, end = end, end + _bytes(extents)
        header[name] = {"dtype": "BF16", "shape": extents, "data_offsets": [begin, end]}
    encoded = msgspec.json.encode(header)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    usual, faint = _noise(rng, _USUAL), _noise(rng, _FAINT)
    own = known * shape.embedding * _ELEMENT
    for name, extents in _tensors(shape):
        size = _bytes(extents)
        if len(extents) == 1:
            file.write(_ONE * extents[0])
        elif name == "model.embed_tokens.weight":
            _fill(file, faint, own)
            _fill(file, usual, size - own)
        else:
            _fill(file, usual, size)


def _bytes(extents: tuple[int, ...]) -> int:
    size = _ELEMENT
    for extent in extents:
        size *= extent
    return size


def _noise(rng: random.Random, high: bytes) -> bytes:
    """A megabyte: drawing every weight would take minutes."""
    values = bytearray(rng.randbytes(_PIECE))
    values[1::2] = values[1::2].translate(high)
    return bytes(values)


def _fill(file: BinaryIO, piece: bytes, size: int) -> None:
    file.writelines(piece for _ in range(size // len(piece)))
    file.write(piece[: size % len(piece)])
