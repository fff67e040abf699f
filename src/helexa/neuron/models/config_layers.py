"""Which layers of a ``config.json`` keep what of the past, and how much a token costs in each.

The counterpart of ``layers`` (GGUF headers); where a file is silent the reading errs towards more
memory: a layer of unknown kind is taken for one with a full cache.
"""

from __future__ import annotations

from helexa.neuron.models.config import MOST_LAYERS, Config
from helexa.neuron.models.layers import Cache

_KINDS = {
    "full_attention": "full", "attention": "full", "global": "full", "*": "full",
    "sliding_attention": "window", "chunked_attention": "window", "local": "window",
    "linear_attention": "state", "mamba": "state", "mamba2": "state", "conv": "state",
    "recurrent": "state", "M": "state", "hybrid": "both",
    "mlp": "none", "moe": "none", "-": "none", "E": "none",
}  # fmt: skip
_LISTS = ("layer_types", "layers_block_type", "block_types")
_PERIODS = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gemma3n_text": 5, "cohere2": 4,
            "gpt_oss": 2, "exaone4": 4}  # fmt: skip
_WHOLLY_STATE = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7"})
_BOTH = frozenset({"falcon_h1"})
_NO_LATENT = frozenset({"minicpm3"})
"""States a latent rank and yet keeps whole keys and values."""
_F32 = 4


def read_config_cache(config: Config, *, encoder: bool) -> Cache:
    """The cache of the model that ``config`` (its language part) describes; pure.

    Args:
        encoder: It reads its input at once and keeps nothing.

    Raises:
        BadModelFile: A member that cannot be.
    """
    heads = config.whole("num_attention_heads", "n_head", "n_heads", "num_heads", default=1)
    hidden = hidden_of(config)
    kv_heads = _kv_heads(config, heads)
    dims = _dims(config, hidden, heads)
    latent = _latent(config)
    kinds = ["none"] * layers_of(config) if encoder else _kinds(config)
    own = len(kinds) - config.whole("num_kv_shared_layers")
    kept = kinds[: max(0, own)]
    full, window = kept.count("full") + kept.count("both"), kept.count("window")
    if latent:
        kv_heads, dims = 1, (latent, 0)
    wide = _global_dims(config, dims)
    return Cache(
        global_layers=full,
        global_elements=full * _global_heads(config, kv_heads) * sum(wide),
        window_layers=window,
        window_elements=window * kv_heads * sum(dims),
        window=_window(config) if window else 0,
        kv_heads=kv_heads,
        dim_k=dims[0],
        dim_v=dims[1],
        state_bytes=_state_bytes(config, kinds, hidden),
        encoder=encoder,
    )


def layers_of(config: Config) -> int:
    """Transformer layers."""
    return config.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers", most=MOST_LAYERS)


def hidden_of(config: Config) -> int:
    """Hidden size."""
    return config.whole("hidden_size", "n_embd", "d_model", "dim")


def _kv_heads(config: Config, heads: int) -> int:
    if config.flag("multi_query") and not config.flag("new_decoder_architecture"):
        return 1  # Falcon's first generation
    names = ("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_kv_heads")
    return config.whole(*names, default=heads)


def _dims(config: Config, hidden: int, heads: int) -> tuple[int, int]:
    dim = config.whole("head_dim", "attention_head_dim", "kv_channels")
    dim = dim or (hidden // heads if heads else 0)
    return dim, dim


def _latent(config: Config) -> int:
    """Elements of a latent and its rotary part, kept once for all heads; 0 without latents."""
    rank = config.whole("kv_lora_rank")
    if not rank or config.text("model_type") in _NO_LATENT:
        return 0
    return rank + config.whole("qk_rope_head_dim")


def _global_dims(config: Config, dims: tuple[int, int]) -> tuple[int, int]:
    wide = config.whole("global_head_dim")
    return (wide, wide) if wide else dims


def _global_heads(config: Config, kv_heads: int) -> int:
    return config.whole("num_global_key_value_heads", default=kv_heads)


def _window(config: Config) -> int:
    return config.whole("sliding_window", "attention_chunk_size")


def _kinds(config: Config) -> list[str]:
    """One of ``full, window, state, both, none`` per layer."""
    layers = layers_of(config)
    stated = _stated(config, layers)
    if stated:
        return (stated + ["full"] * layers)[:layers]
    model = config.text("model_type")
    if model in _WHOLLY_STATE:
        return ["state"] * layers
    if model in _BOTH:
        return ["both"] * layers
    windowed = _windowed(config, model, layers)
    return ["window" if inside else "full" for inside in windowed]


def _stated(config: Config, layers: int) -> list[str]:
    """The kinds that a file lists or gives the rule of; empty when it does not."""
    for name in _LISTS:
        if words := config.words(name):
            cycle = words * (layers // len(words) + 1) if len(words) < layers else words
            return [_KINDS.get(word, "full") for word in cycle]
    if pattern := config.text("hybrid_override_pattern"):
        return [_KINDS.get(letter, "full") for letter in pattern[:MOST_LAYERS]]
    if kinds := config.numbers("attn_type_list"):  # MiniMax: 1 is attention, 0 is linear
        return ["full" if kind else "state" for kind in kinds]
    every = {"full_attn_idxs": 0, "attn_layer_indices": 0}
    for name, first in every.items():
        if chosen := config.numbers(name):
            return ["full" if n + first in chosen else "state" for n in range(layers)]
    if chosen := config.section("linear_attn_config").numbers("full_attn_layers"):
        return ["full" if n + 1 in chosen else "state" for n in range(layers)]
    if period := config.whole("attn_layer_period"):
        offset = config.whole("attn_layer_offset")
        return ["full" if n % period == offset else "state" for n in range(layers)]
    if interval := config.whole("full_attention_interval"):
        return ["full" if (n + 1) % interval == 0 else "state" for n in range(layers)]
    return []


def _windowed(config: Config, model: str, layers: int) -> list[bool]:
    if not _window(config) or not config.flag("use_sliding_window", default=True):
        return [False] * layers
    pattern = config.members.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE: L is local, G is global
        return [pattern[n % len(pattern)] == "L" for n in range(layers)]
    if config.whole("attention_chunk_size") and not config.whole("sliding_window"):
        period = config.whole("no_rope_layer_interval", default=4)
    else:
        period = config.whole("sliding_window_pattern", default=_PERIODS.get(model, 0))
    if period:
        return [(n + 1) % period != 0 for n in range(layers)]
    # Qwen: the first layers are global, and by default all of them.
    first = config.whole("max_window_layers", default=0)
    return [n >= first for n in range(layers)]


def _state_bytes(config: Config, kinds: list[str], hidden: int) -> int:
    """Bytes of one sequence's states in F32, by the family's own shapes."""
    count = kinds.count("state") + kinds.count("both")
    if not count:
        return 0
    known = _delta(config) or _linear(config) or _conv(config, hidden)
    return _F32 * count * (known or _mamba(config, hidden))


def _delta(config: Config) -> int:
    """Gated delta nets (Qwen3-Next and after)."""
    keys, values = config.whole("linear_num_key_heads"), config.whole("linear_num_value_heads")
    key, value = config.whole("linear_key_head_dim"), config.whole("linear_value_head_dim")
    kernel = config.whole("linear_conv_kernel_dim")
    return values * key * value + max(0, kernel - 1) * (2 * keys * key + values * value)


def _linear(config: Config) -> int:
    """Linear attention in shapes of its own (Kimi), or in those of the other layers (MiniMax)."""
    own = config.section("linear_attn_config")
    if heads := own.whole("num_heads"):
        dim, kernel = own.whole("head_dim"), own.whole("short_conv_kernel_size")
        return heads * dim * dim + max(0, kernel - 1) * 3 * heads * dim
    if "attn_type_list" not in config.members:
        return 0
    return config.whole("num_attention_heads") * config.whole("head_dim") ** 2


def _conv(config: Config, hidden: int) -> int:
    """Short convolutions (LFM2)."""
    return max(0, config.whole("conv_L_cache") - 1) * hidden


def _mamba(config: Config, hidden: int) -> int:
    """Mamba of both generations; a file that states no sizes gets the usual ones."""
    inner = config.whole("mamba_d_ssm", "intermediate_size_mamba") or _inner(config, hidden)
    state = config.whole("mamba_d_state", "state_size", "ssm_state_size", default=16)
    groups = config.whole("mamba_n_groups", "n_groups", default=0)
    kernel = config.whole("mamba_d_conv", "conv_kernel", default=4)
    return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner


def _inner(config: Config, hidden: int) -> int:
    heads = config.whole("mamba_n_heads", "mamba_num_heads")
    dim = config.whole("mamba_d_head", "mamba_head_dim")
    return heads * dim or config.whole("mamba_expand", "expand", default=2) * hidden
