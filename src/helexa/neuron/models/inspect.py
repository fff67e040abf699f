"""From a GGUF header to the physics of the model: what it weighs, what a token costs, what it can.

Where a header is ambiguous the reading errs towards more memory: an unknown architecture's window
is taken for a full cache, never the other way round.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from helexa.neuron.models.documents import MOST_TEMPLATE
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.folder import inspect_folder
from helexa.neuron.models.ggml import FILE_TYPES
from helexa.neuron.models.gguf import BadModelFile, Gguf, read_gguf
from helexa.neuron.models.layers import Cache, read_cache
from helexa.neuron.models.projector import Projector, find_projector
from helexa.neuron.models.template import TemplateTraits, read_template

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_REPACKED = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
"""Types that llama.cpp's x86 backend copies into an interleaved layout (``repack.cpp``)."""


def inspect(path: Path, model_id: str) -> ModelFacts:
    """Facts of the model whose file (any shard) or folder is ``path``.

    Args:
        path: A ``.gguf`` file, or a folder of safetensors files.
        model_id: The id it will be served under.

    Raises:
        BadModelFile: The file is missing, truncated, or not a model; with the reason.
    """
    if path.is_dir():
        return inspect_folder(path, model_id)
    header = read_gguf(path)
    facts = facts_of(header, model_id)
    projector = find_projector(path, facts.embedding_dim)
    return facts if projector is None else with_projector(facts, projector)


def with_projector(facts: ModelFacts, projector: Projector) -> ModelFacts:
    """The facts of a model that is loaded with an encoder: of images, or of something else."""
    can = facts.capabilities
    return msgspec.structs.replace(
        facts,
        capabilities=(*can, "vision") if projector.sees and "text" in can else can,
        projector=projector.path,
        projector_bytes=projector.memory_bytes,
        files=(*facts.files, projector.path),
    )


def facts_of(header: Gguf, model_id: str) -> ModelFacts:
    """The facts a header holds; pure.

    Raises:
        BadModelFile: It describes no language model (no architecture, layers or context).
    """
    architecture = header.text("general.architecture") or ""
    layers = header.integer(f"{architecture}.block_count")
    context = header.integer(f"{architecture}.context_length")
    if not architecture or layers <= 0 or context <= 0:
        kind = header.text("general.type") or architecture or "no architecture"
        raise BadModelFile(
            f"model file {header.paths[0]} is not a language model: {kind}, {layers} layers, "
            f"context {context}. Name the file that holds the model's weights."
        )
    cache = read_cache(header, architecture, layers)
    template = _template(header)
    traits = read_template(template) if template else TemplateTraits()
    pooling = _pooling(header, architecture)
    return ModelFacts(
        model_id=model_id,
        path=header.paths[0],
        format="gguf",
        architecture=architecture,
        parameters=sum(t.elements for t in header.tensors),
        weight_bytes=sum(t.size for t in header.tensors),
        layers=layers,
        kv_layers=cache.global_layers,
        kv_heads=cache.kv_heads,
        head_dim_k=cache.dim_k,
        head_dim_v=cache.dim_v,
        context_native=context,
        embedding_dim=header.integer(f"{architecture}.embedding_length"),
        vocab=_vocab(header, architecture),
        sliding_window=cache.window or None,
        windowed_layers=cache.window_layers,
        chat_template=template,
        capabilities=_capabilities(header, traits, pooling, cache),
        think_markers=traits.markers,
        pooling=pooling,
        quant=_quant(header),
        heads=header.integer(f"{architecture}.attention.head_count"),
        feed_forward=_feed_forward(header, architecture),
        experts=header.integer(f"{architecture}.expert_count"),
        kv_elements=cache.global_elements,
        window_elements=cache.window_elements,
        state_bytes=cache.state_bytes,
        embedding_bytes=_size_of(header, "token_embd.weight"),
        tied=not _size_of(header, "output.weight"),
        repack_bytes=_repacked(header),
        merges=header.length("tokenizer.ggml.merges"),
        thinking_variable=traits.switch,
        unsupported=("audio",) if traits.audio else (),
        thinks_first=traits.opens,
        effort_levels=traits.levels,
        files=header.paths,
    )


def _template(header: Gguf) -> str | None:
    template = header.text("tokenizer.chat_template")
    if template is not None and len(template) > MOST_TEMPLATE:
        raise BadModelFile(
            f"model file {header.paths[0]} cannot be used: its chat template has {len(template)} "
            f"characters, more than the {MOST_TEMPLATE} that any has. Name another model."
        )
    return template


def _pooling(header: Gguf, architecture: str) -> str | None:
    key = f"{architecture}.pooling_type"
    return _POOLING.get(header.integer(key)) if key in header.metadata else None


def _capabilities(
    header: Gguf, traits: TemplateTraits, pooling: str | None, cache: Cache
) -> tuple[str, ...]:
    if pooling == "rank" or any(t.name.startswith("cls.output") for t in header.tensors):
        return ("rerank",)
    if pooling in ("mean", "cls", "last") or cache.encoder:
        return ("embeddings",)
    extras = (("tools", traits.tools), ("reasoning", bool(traits.markers)))
    return ("text", *(name for name, has in extras if has))


def _vocab(header: Gguf, architecture: str) -> int:
    return header.length("tokenizer.ggml.tokens") or header.integer(f"{architecture}.vocab_size")


def _quant(header: Gguf) -> str:
    named = FILE_TYPES.get(header.integer("general.file_type", -1))
    if named:
        return named
    sizes: dict[str, int] = {}
    for tensor in header.tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda kind: sizes[kind], default="")


def _feed_forward(header: Gguf, architecture: str) -> int:
    dense = header.integer(f"{architecture}.feed_forward_length")
    used = header.integer(f"{architecture}.expert_used_count")
    expert = header.integer(f"{architecture}.expert_feed_forward_length", dense)
    shared = header.integer(f"{architecture}.expert_shared_feed_forward_length")
    return max(dense, used * expert + shared)


def _size_of(header: Gguf, name: str) -> int:
    return next((t.size for t in header.tensors if t.name == name), 0)


def _repacked(header: Gguf) -> int:
    return sum(
        t.size for t in header.tensors if t.type in _REPACKED and t.name != "token_embd.weight"
    )
