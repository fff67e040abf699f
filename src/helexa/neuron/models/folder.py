"""The physics of a safetensors folder, from its small files and the headers of its weights.

::

    config.json ─▶ layers, sizes, context ─┐
    template ────▶ tools, thinking ────────┼─▶ ModelFacts
    what is beside ▶ pooling, processors ──┤
    headers ─────▶ elements, bytes ────────┘
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from helexa.neuron.models.abilities import abilities, is_encoder
from helexa.neuron.models.config import Config
from helexa.neuron.models.config_layers import hidden_of, layers_of, read_config_cache
from helexa.neuron.models.context import context_of
from helexa.neuron.models.documents import Documents, read_documents
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.gguf import BadModelFile, PartialModelFile
from helexa.neuron.models.quantised import Quantised, quantised
from helexa.neuron.models.template import TemplateTraits, read_template

_MAX_HEADER = 100 << 20
"""The format's own bound on a header."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class Weights(NamedTuple):
    """All weight files together: elements (0 is unknown) and bytes."""

    elements: int
    size: int


def inspect_folder(folder: Path, model_id: str) -> ModelFacts:
    """Facts of the model in ``folder``.

    Raises:
        BadModelFile: A file that cannot be read, is truncated, or states what cannot be.
    """
    try:
        documents = read_documents(folder)
    except OSError as error:
        raise BadModelFile(f"model folder {folder} cannot be read: {error.strerror}.") from error
    counted = [_weights(folder / name) for name in weight_files(documents)]
    weights = Weights(sum(w.elements for w in counted), sum(w.size for w in counted))
    return folder_facts(documents, weights, model_id, folder)


def weight_files(documents: Documents) -> list[str]:
    """The safetensors files that make the model: those of the index, or all but doubles."""
    stored = sorted(n for n in documents.sizes if n.endswith(".safetensors") and "/" not in n)
    mapped = documents.members("model.safetensors.index.json").get("weight_map")
    if isinstance(mapped, dict):
        named = {str(file) for file in mapped.values()}
        missing = sorted(named - set(stored))
        if missing:
            raise documents.bad(missing[0], "it is missing, and the index of the weights names it")
        return sorted(named)
    split = [n for n in stored if not n.startswith(("consolidated", "adapter_"))]
    return split or stored


def folder_facts(documents: Documents, weights: Weights, model_id: str, folder: Path) -> ModelFacts:
    """Facts from the small files and what the weights weigh; pure.

    Raises:
        BadModelFile: It is no model, or states what cannot be.
    """
    check_kind(documents)
    config = Config.of(documents)
    text = config.language()
    template = template_of(documents)
    traits = read_template(template) if template else TemplateTraits()
    can = abilities(config, documents, traits)
    cache = read_config_cache(text, encoder=is_encoder(config))
    stored = quantised(config, text, documents)
    layers = layers_of(text)
    if not layers and can.refusal is None:
        raise documents.bad("config.json", "it states no layers (num_hidden_layers)")
    return ModelFacts(
        model_id=model_id,
        path=folder,
        format="safetensors",
        architecture=next(iter(config.words("architectures")), config.text("model_type")),
        model_type=config.text("model_type"),
        parameters=weights.elements or _elements_of(weights.size, stored),
        weight_bytes=weights.size,
        layers=layers,
        kv_layers=cache.global_layers,
        kv_heads=cache.kv_heads,
        head_dim_k=cache.dim_k,
        head_dim_v=cache.dim_v,
        context_native=context_of(text, documents, vectors="text" not in can.capabilities),
        embedding_dim=hidden_of(text),
        vocab=text.whole("vocab_size", "n_vocab"),
        sliding_window=cache.window or None,
        windowed_layers=cache.window_layers,
        chat_template=template,
        capabilities=can.capabilities,
        think_markers=traits.markers,
        pooling=can.pooling,
        quant=stored.name,
        quant_method=stored.method,
        heads=text.whole("num_attention_heads", "n_head", "n_heads", "num_heads"),
        feed_forward=_feed_forward(text),
        experts=text.whole(*_EXPERTS),
        kv_elements=cache.global_elements,
        window_elements=cache.window_elements,
        state_bytes=cache.state_bytes,
        tied=text.flag("tie_word_embeddings"),
        thinking_variable=traits.switch,
        unsupported=can.unsupported,
        refusal=can.refusal,
        thinks_first=traits.opens,
        effort_levels=traits.levels,
        sampling=_sampling(documents),
        files=tuple(folder / name for name in sorted(documents.sizes)),
    )


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def check_kind(documents: Documents) -> None:
    """Refuse what is no model of ours, by what it is.

    Raises:
        BadModelFile: With what it is, and what to name instead.
    """
    if documents.has("config.json"):
        return
    if documents.has("adapter_config.json"):
        base = documents.members("adapter_config.json").get("base_model_name_or_path") or "its base"
        raise documents.bad(
            "adapter_config.json", f"this is an adapter of {str(base)[:200]}, not a model; merge it"
        )
    if documents.has("model_index.json"):
        raise documents.bad("model_index.json", "this makes pictures, which no engine here does")
    raise documents.bad("config.json", "it is missing")


def template_of(documents: Documents) -> str | None:
    """The chat template: a file of its own, or a member of the tokenizer's settings.

    Of several by name the one with tools is taken, as engines do when a request has some.
    """
    own = documents.template("chat_template.jinja")
    if own is not None:
        return own
    for name in ("chat_template.json", "tokenizer_config.json"):
        stated = documents.members(name).get("chat_template")
        if isinstance(stated, str):
            return documents.bounded(name, stated)
        if isinstance(stated, list):
            named = {str(t.get("name")): t.get("template") for t in stated if isinstance(t, dict)}
            chosen = named.get("tool_use") or named.get("default")
            if isinstance(chosen, str):
                return documents.bounded(name, chosen)
    return None


def _feed_forward(text: Config) -> int:
    """Widest activation of one token: the dense one, or the experts in use together."""
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "intermediate_size_mlp")
    dense = text.whole(*names)
    if not text.whole(*_EXPERTS):
        return dense
    used = text.whole("num_experts_per_tok", "moe_topk", "top_k_experts", default=1)
    each = text.whole("moe_intermediate_size", "expert_ffn_hidden_size", default=dense)
    shared = text.whole("shared_expert_intermediate_size")
    shared = shared or text.whole("n_shared_experts") * each
    return max(dense, used * each + shared)


def _sampling(documents: Documents) -> dict[str, float]:
    """The model's own sampling defaults."""
    stated = Config.of(documents, "generation_config.json")
    found = {n: stated.number(n, 0.0) for n in _SAMPLING if stated.members.get(n) is not None}
    return {name: value for name, value in found.items() if value}


def _elements_of(size: int, stored: Quantised) -> int:
    """About how many weights so many bytes are."""
    return size * 8 // (stored.bits or (32 if stored.name == "F32" else 16))


def _weights(file: Path) -> Weights:
    """Elements and bytes of one file, from its header."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER):
            raise PartialModelFile(
                f"model file {file} is truncated: its header needs {length + 8} bytes, the file "
                f"has {size}. Fetch it again."
            )
        return read_header(opened.read(length), size - 8 - length, str(file))


def read_header(header: bytes, room: int, where: str) -> Weights:
    """What a safetensors header lists; pure.

    Args:
        header: The JSON after the length.
        room: Bytes that follow it.

    Raises:
        BadModelFile: It is no such header, or lists more than follows.
    """
    try:
        listed = json.loads(header)
        tensors = [t for name, t in listed.items() if name != "__metadata__"]
        end = max((int(t["data_offsets"][1]) for t in tensors), default=0)
        elements = sum(_product(t["shape"]) for t in tensors)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadModelFile(
            f"model file {where} cannot be used: its header is not one of safetensors "
            f"({type(error).__name__}). Fetch it again."
        ) from error
    if end > room:
        raise PartialModelFile(
            f"model file {where} is truncated: its tensors need {end} bytes, {room} follow its "
            "header. Fetch it again."
        )
    return Weights(elements, end)


def _product(shape: Iterable[Any]) -> int:
    count = 1
    for extent in shape:
        count *= int(extent)
    return count
