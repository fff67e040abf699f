"""Encoders in the shape of BERT: one that embeds (mean pooling), one that ranks.

The vocabulary has every ASCII letter and digit as a word's beginning and as its continuation, so
any ASCII text is read, letter by letter; what else a text has is one unknown token.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import gguf

from tiny.weights import Random, finish, new

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PAD, _UNKNOWN, _CLS, _SEP, _MASK = range(5)
_LOUD = 0.3


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of an encoder; ``ranks`` adds the head that scores a pair."""

    hidden: int = 64
    layers: int = 2
    heads: int = 2
    intermediate: int = 128
    context: int = 512
    ranks: bool = False


SHAPES = {"embedder": Shape(), "reranker": Shape(ranks=True)}


def vocabulary() -> list[str]:
    """Special tokens, then letters, digits and signs: at the start of a word, and within one."""
    signs = string.ascii_lowercase + string.digits
    return [*SPECIAL, *("▁" + sign for sign in signs + string.punctuation), *signs]


def write(path: Path, shape: Shape, seed: int) -> None:
    """Write one file in f16."""
    writer = new(path, "bert", gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if shape.ranks else gguf.PoolingType.MEAN)
    tokens = vocabulary()
    _add_tokenizer(writer, tokens)
    _add_weights(Random(writer, seed, _LOUD), shape, len(tokens))
    finish(writer)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    control, unknown = int(gguf.TokenType.CONTROL), int(gguf.TokenType.UNKNOWN)
    normal = int(gguf.TokenType.NORMAL)
    types = [control] * len(SPECIAL) + [normal] * (len(tokens) - len(SPECIAL))
    types[_UNKNOWN] = unknown
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(_CLS)
    writer.add_eos_token_id(_SEP)
    writer.add_unk_token_id(_UNKNOWN)
    writer.add_sep_token_id(_SEP)
    writer.add_pad_token_id(_PAD)
    writer.add_mask_token_id(_MASK)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def _add_weights(draw: Random, shape: Shape, vocab: int) -> None:
    hidden = shape.hidden
    draw.f16("token_embd.weight", vocab, hidden)
    draw.f32("token_types.weight", 2, hidden)
    draw.f32("position_embd.weight", shape.context, hidden)
    draw.norm("token_embd_norm", hidden)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            draw.linear(block + name, hidden, hidden)
        draw.norm(block + "attn_output_norm", hidden)
        draw.linear(block + "ffn_up", shape.intermediate, hidden)
        draw.linear(block + "ffn_down", hidden, shape.intermediate)
        draw.norm(block + "layer_output_norm", hidden)
    if shape.ranks:
        draw.linear("cls", hidden, hidden)
        draw.linear("cls.output", 1, hidden)
