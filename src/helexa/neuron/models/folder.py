"""The physics of a safetensors folder, from its ``config.json`` and the files' headers.

Enough to say what it weighs and what a token costs; engines that run such folders read the rest.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.gguf import BadModelFile
from helexa.neuron.models.template import TemplateTraits, read_template

_MAX_HEADER = 100 << 20
"""The format's own bound on a header."""


def inspect_folder(folder: Path, model_id: str) -> ModelFacts:
    """Facts of the model in ``folder``.

    Raises:
        BadModelFile: No readable ``config.json``, or a weight file that is truncated.
    """
    config = _json(folder / "config.json")
    text = config.get("text_config") or config
    template = _template(folder)
    traits = read_template(template) if template else TemplateTraits()
    layers, heads = int(text.get("num_hidden_layers", 0)), int(text.get("num_attention_heads", 1))
    hidden = int(text.get("hidden_size", 0))
    kinds = list(text.get("layer_types") or ["full_attention"] * layers)
    dim = int(text.get("head_dim") or hidden // heads)
    kv_heads = int(text.get("num_key_value_heads") or heads)
    weights = [_weights(file) for file in sorted(folder.glob("*.safetensors"))]
    full, windowed = kinds.count("full_attention"), kinds.count("sliding_attention")
    extras = (("tools", traits.tools), ("reasoning", bool(traits.markers)),
              ("vision", "vision_config" in config))  # fmt: skip
    return ModelFacts(
        model_id=model_id,
        path=folder,
        format="safetensors",
        architecture=str((config.get("architectures") or [config.get("model_type", "")])[0]),
        parameters=sum(count for count, _ in weights),
        weight_bytes=sum(size for _, size in weights),
        layers=layers,
        kv_layers=full,
        kv_heads=kv_heads,
        head_dim_k=dim,
        head_dim_v=dim,
        context_native=int(text.get("max_position_embeddings", 0)),
        embedding_dim=hidden,
        vocab=int(text.get("vocab_size", 0)),
        sliding_window=text.get("sliding_window") if windowed else None,
        windowed_layers=windowed,
        chat_template=template,
        capabilities=("text", *(name for name, has in extras if has)),
        think_markers=traits.markers,
        thinking_switch=traits.switch == "enable_thinking",
        quant=_precision(config),
        heads=heads,
        feed_forward=int(text.get("intermediate_size") or 0),
        kv_elements=2 * dim * kv_heads * full,
        window_elements=2 * dim * kv_heads * windowed,
        tied=bool(text.get("tie_word_embeddings", False)),
        thinking_variable=traits.switch,
        files=tuple(sorted(p for p in folder.iterdir() if p.is_file())),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadModelFile(f"model file {path} cannot be read: {error}. Fetch it again.") from error
    if not isinstance(value, dict):
        raise BadModelFile(f"model file {path} is not a JSON object. Fetch it again.")
    return value


def _template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    settings = folder / "tokenizer_config.json"
    stated = _json(settings).get("chat_template") if settings.is_file() else None
    return stated if isinstance(stated, str) else None


def _precision(config: dict[str, Any]) -> str:
    quantised = config.get("quantization_config") or {}
    stated = quantised.get("quant_method") or config.get("dtype") or config.get("torch_dtype")
    return str(stated or "").upper()


def _weights(file: Path) -> tuple[int, int]:
    """Elements and bytes of one file, from its header."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER):
            raise BadModelFile(
                f"model file {file} is truncated: its header needs {length + 8} bytes, the file "
                f"has {size}. Fetch it again."
            )
        header = json.loads(opened.read(length))
    tensors = [t for name, t in header.items() if name != "__metadata__"]
    end = max((t["data_offsets"][1] for t in tensors), default=0)
    if size < 8 + length + end:
        raise BadModelFile(
            f"model file {file} is truncated: its tensors need {8 + length + end} bytes, the file "
            f"has {size}. Fetch it again."
        )
    elements = 0
    for tensor in tensors:
        count = 1
        for extent in tensor["shape"]:
            count *= extent
        elements += count
    return elements, end
