"""Write a checkpoint as GGUF and as a Hugging Face folder, both in 16-bit floats.

    python scripts/spark/export.py CHECKPOINT

Without a checkpoint, a freshly initialised model is written: the right shape, no sense.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import torch
from model import Shape, Spark
from safetensors.torch import save_file
from tokenizer import MARKERS, SPECIAL, VOCAB_SIZE

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "src/helexa/spark/model"
MODEL_ID = "helexa/spark"

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """Map `model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(path: Path, weights: dict[str, torch.Tensor], shape: Shape, tokenizer: Any) -> None:
    writer = gguf.GGUFWriter(str(path), "qwen3")
    writer.add_name("spark")
    writer.add_organization("helexa")
    writer.add_license("apache-2.0")
    writer.add_size_label(f"{sum(w.numel() for w in weights.values()) / 1e6:.1f}M")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_tokenizer(writer, tokenizer)
    for name, weight in weights.items():
        kept = torch.float32 if weight.dim() == 1 else torch.float16
        writer.add_tensor(gguf_name(name), weight.to(kept).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    model = tokenizer["model"]
    entries = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [gguf.TokenType.NORMAL] * len(entries)
    for token in SPECIAL:
        entries.append(token)
        marker = token in MARKERS
        kinds.append(gguf.TokenType.USER_DEFINED if marker else gguf.TokenType.CONTROL)
    if len(entries) != VOCAB_SIZE:
        raise ValueError(f"{len(entries)} tokens, expected {VOCAB_SIZE}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(entries)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(entries.index("<|im_end|>"))
    writer.add_pad_token_id(entries.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template((HERE / "chat_template.jinja").read_text())


def write_hf(folder: Path, weights: dict[str, torch.Tensor], shape: Shape, ids: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: weight.to(torch.float16).contiguous() for name, weight in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "max_window_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.eps,
        "rope_scaling": None,
        "rope_theta": shape.theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocab,
    }
    generation = {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
    }
    files = {
        "config": config,
        "generation_config": generation,
        "tokenizer_config": tokenizer_config,
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text((HERE / "chat_template.jinja").read_text())


def main() -> None:
    shape = Shape()
    model = Spark(shape)
    if len(sys.argv) > 1:
        state = torch.load(sys.argv[1], map_location="cpu")
        model.load_state_dict(state.get("model", state))
    weights = {name: weight.detach().float() for name, weight in model.state_dict().items()}
    tokenizer = json.loads((TARGET / "hf/tokenizer.json").read_text())
    ids = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    write_gguf(TARGET / "spark.gguf", weights, shape, tokenizer)
    write_hf(TARGET / "hf", weights, shape, ids)
    size = sum(f.stat().st_size for f in TARGET.rglob("*") if f.is_file())
    print(f"{TARGET}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
