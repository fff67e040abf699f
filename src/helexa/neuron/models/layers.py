"""Which layers keep what of the past: all of it, a window of it, or a state of fixed size.

llama.cpp knows some of this from its code rather than from the header; the tables here repeat it
(``set_swa_pattern`` and ``recurrent_layer_arr`` in ``src/models/*.cpp``).
"""

from __future__ import annotations

import msgspec

from helexa.neuron.models.gguf import Gguf

_PERIODS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gemma-embedding": 6,
    "cohere2": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "smallthinker": 4,
    "afmoe": 4,
    "modern-bert": 3,
    "olmo2": 4,
}
"""Every n-th layer is global, the others windowed; ``…sliding_window_pattern`` overrides n."""

_ENCODERS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert",
    "modern-bert", "eurobert", "gemma-embedding",
})  # fmt: skip
_NO_ATTENTION = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_EVERY_FOURTH = frozenset({"qwen3next", "qwen35", "qwen35moe"})


class Cache(msgspec.Struct, frozen=True):
    """What a sequence keeps; elements are K + V per token summed over the layers concerned."""

    global_layers: int
    global_elements: int
    window_layers: int
    window_elements: int
    window: int
    kv_heads: int
    dim_k: int
    dim_v: int
    state_bytes: int
    encoder: bool


def read_cache(header: Gguf, architecture: str, layers: int) -> Cache:
    """The cache of a model with ``layers`` layers; pure."""
    heads = header.per_layer(f"{architecture}.attention.head_count", layers, 1)
    kv_heads = header.per_layer(f"{architecture}.attention.head_count_kv", layers, -1)
    kv_heads = [own if own >= 0 else shared for own, shared in zip(kv_heads, heads, strict=True)]
    encoder = architecture in _ENCODERS
    recurrent = _recurrent(header, architecture, layers)
    owners = _owners(header, architecture, layers)
    growing = [
        not encoder and own and count > 0 and not state
        for own, count, state in zip(owners, kv_heads, recurrent, strict=True)
    ]
    window = header.integer(f"{architecture}.attention.sliding_window")
    windowed = _windowed(header, architecture, layers) if window else [False] * layers
    dims = _dims(header, architecture, max(heads, default=1))
    small = _dims(header, architecture, max(heads, default=1), "_swa")
    in_window = [g and w for g, w in zip(growing, windowed, strict=True)]
    in_full = [g and not w for g, w in zip(growing, windowed, strict=True)]
    return Cache(
        global_layers=sum(in_full),
        global_elements=sum(n for n, full in zip(kv_heads, in_full, strict=True) if full)
        * sum(dims),
        window_layers=sum(in_window),
        window_elements=sum(n for n, kept in zip(kv_heads, in_window, strict=True) if kept)
        * sum(small),
        window=window if any(in_window) else 0,
        kv_heads=max(kv_heads, default=0),
        dim_k=dims[0],
        dim_v=dims[1],
        state_bytes=_state_bytes(header, architecture, _states(architecture, recurrent, kv_heads)),
        encoder=encoder,
    )


def _dims(header: Gguf, architecture: str, heads: int, suffix: str = "") -> tuple[int, int]:
    """Elements per head of a key and of a value.

    With latent attention (``key_length_mla``) the value is a part of the key and not stored.
    """
    hidden = header.integer(f"{architecture}.embedding_length")
    plain = hidden // heads if heads else 0
    prefix = f"{architecture}.attention."
    key = header.integer(f"{prefix}key_length", plain)
    value = header.integer(f"{prefix}value_length", plain)
    if suffix:
        key = header.integer(f"{prefix}key_length{suffix}", key)
        value = header.integer(f"{prefix}value_length{suffix}", value)
    if header.integer(f"{prefix}key_length_mla"):
        value = 0
    return key, value


def _windowed(header: Gguf, architecture: str, layers: int) -> list[bool]:
    key = f"{architecture}.attention.sliding_window_pattern"
    stated = header.metadata.get(key)
    if isinstance(stated, list):
        return [bool(v) for v in header.per_layer(key, layers)]
    period = header.integer(key, _PERIODS.get(architecture, 1))
    return [period == 0 or layer % period < period - 1 for layer in range(layers)]


def _owners(header: Gguf, architecture: str, layers: int) -> list[bool]:
    """Layers with a cache of their own: the last ``shared_kv_layers`` read an earlier one's."""
    shared = header.integer(f"{architecture}.attention.shared_kv_layers")
    return [layer < layers - shared for layer in range(layers)]


def _recurrent(header: Gguf, architecture: str, layers: int) -> list[bool]:
    """Layers that keep a state instead of keys and values."""
    if architecture in _NO_ATTENTION:
        return [True] * layers
    period = header.integer(
        f"{architecture}.full_attention_interval", 4 if architecture in _EVERY_FOURTH else 0
    )
    return [bool(period) and (layer + 1) % period != 0 for layer in range(layers)]


def _states(architecture: str, recurrent: list[bool], kv_heads: list[int]) -> int:
    """How many layers have a state. Falcon-H1 has attention and a state in every layer."""
    if architecture == "falcon-h1":
        return len(recurrent)
    return sum(state or heads == 0 for state, heads in zip(recurrent, kv_heads, strict=True))


def _state_bytes(header: Gguf, architecture: str, layers: int) -> int:
    """Bytes of one sequence's states, in F32 (llama.cpp's ``n_embd_r`` + ``n_embd_s``)."""
    inner = header.integer(f"{architecture}.ssm.inner_size")
    state = header.integer(f"{architecture}.ssm.state_size")
    groups = header.integer(f"{architecture}.ssm.group_count")
    kernel = header.integer(f"{architecture}.ssm.conv_kernel")
    convolution = max(0, kernel - 1) * (inner + 2 * groups * state)
    wkv = header.integer(f"{architecture}.wkv.head_size")
    hidden = header.integer(f"{architecture}.embedding_length")
    rwkv = hidden * (wkv + 2) if wkv else 0
    return 4 * layers * (convolution + state * inner + rwkv)
