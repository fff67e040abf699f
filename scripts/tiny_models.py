"""Write GGUF files of random weights in the shape of real models.

For benchmarks and tests that need a model's size and speed but not its answers::

    python scripts/tiny_models.py --shape qwen3-0.6b --type q8_0 --out /tmp/random-0.6b.gguf

Needs ``gguf`` and ``numpy`` (not dependencies of the project). The vocabulary is the 256 bytes
and filler words; the chat template is the built-in model's. Same seed, same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

TEMPLATE = Path(__file__).parent / "spark/chat_template.jinja"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
           "</tool_response>")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Qwen3 model (elements)."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    context: int


SHAPES = {
    "tiny": Shape(2048, 192, 4, 4, 2, 64, 512, 8192),
    "qwen3-0.6b": Shape(151_936, 1024, 28, 16, 8, 128, 3072, 40_960),
}


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    hidden = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + index) for index, byte in enumerate(hidden)})
    return [table[byte] for byte in range(256)]


def vocabulary(size: int) -> tuple[list[str], list[int]]:
    """``size`` tokens and their types: bytes, filler, then the special ones."""
    special = CONTROL + MARKERS
    filler = [f"Ġw{index}" for index in range(size - 256 - len(special))]
    tokens = byte_alphabet() + filler + list(special)
    normal = [int(gguf.TokenType.NORMAL)] * (256 + len(filler))
    control = [int(gguf.TokenType.CONTROL)] * len(CONTROL)
    return tokens, normal + control + [int(gguf.TokenType.USER_DEFINED)] * len(MARKERS)


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Names and (rows, columns) of every weight matrix."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "token_embd", shape.vocab, shape.hidden
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield block + "attn_q", query, shape.hidden
        yield block + "attn_k", key, shape.hidden
        yield block + "attn_v", key, shape.hidden
        yield block + "attn_output", shape.hidden, query
        yield block + "ffn_gate", shape.intermediate, shape.hidden
        yield block + "ffn_up", shape.intermediate, shape.hidden
        yield block + "ffn_down", shape.hidden, shape.intermediate


def norms(shape: Shape) -> Iterator[tuple[str, int]]:
    """Names and widths of every norm."""
    yield "output_norm", shape.hidden
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm", shape.hidden
        yield f"blk.{layer}.ffn_norm", shape.hidden
        yield f"blk.{layer}.attn_q_norm", shape.head_dim
        yield f"blk.{layer}.attn_k_norm", shape.head_dim


def random_q8(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Q8_0 blocks drawn directly: one f16 scale and 32 signed bytes per 32 elements."""
    blocks = np.empty((rows, columns // 32, 34), dtype=np.uint8)
    scale = np.array([0.02 / 74.0], dtype=np.float16).view(np.uint8)
    blocks[:, :, :2] = scale
    blocks[:, :, 2:] = rng.integers(0, 256, (rows, columns // 32, 32), dtype=np.uint8)
    return blocks.reshape(rows, -1)


def random_f16(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Normal weights with the usual deviation of 0.02."""
    return (rng.standard_normal((rows, columns), dtype=np.float32) * 0.02).astype(np.float16)


def add_header(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write what a loader reads before the weights."""
    writer.add_name("random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)


def add_tokenizer(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the byte vocabulary, one merge (a loader wants some) and the template."""
    tokens, types = vocabulary(shape.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text())


def write(path: Path, shape: Shape, quant: str, seed: int) -> None:
    """Write one file: ``quant`` is ``f16`` or ``q8_0``."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "qwen3")
    is_q8 = quant == "q8_0"
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if is_q8 else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(int(kind))
    add_header(writer, shape)
    add_tokenizer(writer, shape)
    for name, rows, columns in matrices(shape):
        if is_q8:
            data = random_q8(rng, rows, columns)
            writer.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name + ".weight", random_f16(rng, rows, columns))
    for name, width in norms(shape):
        writer.add_tensor(name + ".weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--type", choices=("f16", "q8_0"), default="q8_0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write(args.out, SHAPES[args.shape], args.type, args.seed)


if __name__ == "__main__":
    main()
