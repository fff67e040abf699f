"""Decoders: models that write, in the shapes of Qwen3 and of the text half of Qwen2-VL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf

from tiny.weights import DEVIATION, Random, finish, new

TEMPLATE = Path(__file__).parents[1] / "spark/chat_template.jinja"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
           "</tool_response>")  # fmt: skip
SEEING = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_PARTS = """\
{%- macro shown(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content or [] -%}
            {%- if part.type == 'image' -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- elif part.text -%}
                {{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a decoder (elements).

    Args:
        sees: The text half of a Qwen2-VL: its template takes images, its rotary embedding has
            sections for time, height and width. Otherwise a Qwen3.
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    context: int
    sees: bool = False
    loud: float = DEVIATION


SHAPES = {
    "tiny": Shape(2048, 192, 4, 4, 2, 64, 512, 8192),
    "qwen3-0.6b": Shape(151_936, 1024, 28, 16, 8, 128, 3072, 40_960),
    "vision": Shape(1024, 128, 2, 2, 1, 64, 256, 16_384, sees=True, loud=0.3),
}


def write(path: Path, shape: Shape, quant: str, seed: int) -> None:
    """Write one file: ``quant`` is ``f16`` or ``q8_0``."""
    is_q8 = quant == "q8_0"
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if is_q8 else gguf.LlamaFileType.MOSTLY_F16
    writer = new(path, "qwen2vl" if shape.sees else "qwen3", kind)
    _add_header(writer, shape)
    _add_tokenizer(writer, shape)
    draw = Random(writer, seed, shape.loud)
    _add_weights(draw, shape, is_q8=is_q8)
    finish(writer)


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    hidden = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + index) for index, byte in enumerate(hidden)})
    return [table[byte] for byte in range(256)]


def vocabulary(shape: Shape) -> tuple[list[str], list[int]]:
    """Tokens and their types: bytes, filler, then the special ones."""
    control = CONTROL + SEEING if shape.sees else CONTROL
    special = control + MARKERS
    filler = [f"Ġw{index}" for index in range(shape.vocab - 256 - len(special))]
    tokens = byte_alphabet() + filler + list(special)
    types = [int(gguf.TokenType.NORMAL)] * (256 + len(filler))
    types += [int(gguf.TokenType.CONTROL)] * len(control)
    return tokens, types + [int(gguf.TokenType.USER_DEFINED)] * len(MARKERS)


def chat_template(shape: Shape) -> str:
    """The built-in model's; where the model sees, contents may be parts with images."""
    text = TEMPLATE.read_text()
    if not shape.sees:
        return text
    return _PARTS + text.replace("(message.content or '')", "shown(message.content)").replace(
        "message.content or ''", "shown(message.content)"
    )


def _add_header(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write what a loader reads before the weights."""
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(1_000_000.0)
    if shape.sees:
        quarter = shape.head_dim // 8
        writer.add_rope_dimension_sections(
            [quarter, (shape.head_dim // 2 - quarter) // 2, (shape.head_dim // 2 - quarter) // 2, 0]
        )
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)


def _add_tokenizer(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the byte vocabulary, one merge (a loader wants some) and the template."""
    tokens, types = vocabulary(shape)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template(shape))


def _add_weights(draw: Random, shape: Shape, *, is_q8: bool) -> None:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrix = draw.q8 if is_q8 else draw.f16
    matrix("token_embd.weight", shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        matrix(block + "attn_q.weight", query, shape.hidden)
        matrix(block + "attn_k.weight", key, shape.hidden)
        matrix(block + "attn_v.weight", key, shape.hidden)
        matrix(block + "attn_output.weight", shape.hidden, query)
        matrix(block + "ffn_gate.weight", shape.intermediate, shape.hidden)
        matrix(block + "ffn_up.weight", shape.intermediate, shape.hidden)
        matrix(block + "ffn_down.weight", shape.hidden, shape.intermediate)
    draw.ones("output_norm.weight", shape.hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        draw.ones(block + "attn_norm.weight", shape.hidden)
        draw.ones(block + "ffn_norm.weight", shape.hidden)
        if shape.sees:
            draw.f32(block + "attn_q.bias", query)
            draw.f32(block + "attn_k.bias", key)
            draw.f32(block + "attn_v.bias", key)
        else:
            draw.ones(block + "attn_q_norm.weight", shape.head_dim)
            draw.ones(block + "attn_k_norm.weight", shape.head_dim)
