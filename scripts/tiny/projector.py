"""An image encoder in the shape of Qwen2-VL's, for the decoder of the shape ``vision``.

A picture of w × h pixels is w/28 × h/28 tokens (patches of 14, two by two merged), so that larger
pictures cost more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf

from tiny.weights import Random, finish, new


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of an image encoder (elements; ``image`` and ``patch`` in pixels)."""

    hidden: int = 64
    layers: int = 2
    heads: int = 2
    intermediate: int = 128
    image: int = 224
    patch: int = 14
    merge: int = 2
    projected: int = 128


def write(path: Path, shape: Shape, seed: int) -> None:
    """Write one file in f16."""
    writer = new(path, "clip", gguf.LlamaFileType.MOSTLY_F16)
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("qwen2vl_merger")
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_size(shape.image)
    writer.add_vision_patch_size(shape.patch)
    writer.add_vision_embedding_length(shape.hidden)
    writer.add_vision_feed_forward_length(shape.intermediate)
    writer.add_vision_block_count(shape.layers)
    writer.add_vision_head_count(shape.heads)
    writer.add_vision_projection_dim(shape.projected)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_spatial_merge_size(shape.merge)
    writer.add_vision_image_mean([0.48145466, 0.4578275, 0.40821073])
    writer.add_vision_image_std([0.26862954, 0.26130258, 0.27577711])
    _add_weights(Random(writer, seed, 0.3), shape)
    finish(writer)


def _add_weights(draw: Random, shape: Shape) -> None:
    hidden, patch = shape.hidden, shape.patch
    for half in ("weight", "weight.1"):  # of two frames in time
        draw.f16(f"v.patch_embd.{half}", hidden, 3, patch, patch)
    for layer in range(shape.layers):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            draw.linear(block + name, hidden, hidden)
        draw.norm(block + "ln1", hidden)
        draw.norm(block + "ln2", hidden)
        draw.linear(block + "ffn_up", shape.intermediate, hidden)
        draw.linear(block + "ffn_down", hidden, shape.intermediate)
    draw.norm("v.post_ln", hidden)
    merged = hidden * shape.merge**2
    draw.linear("mm.0", merged, merged)
    draw.linear("mm.2", shape.projected, merged)
