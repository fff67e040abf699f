"""What a model's own files say about it, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Format = Literal["gguf", "safetensors"]


class ModelFacts(msgspec.Struct, frozen=True):
    """The physics of one model, read from its header.

    Args:
        model_id: The id it is served under.
        path: The GGUF file (first shard) or the safetensors folder.
        architecture: For example ``qwen3``.
        parameters: Count of weights.
        weight_bytes: Bytes of all tensors as stored.
        layers: Transformer layers (all).
        kv_layers: Layers whose KV cache grows with the context.
        kv_heads: KV heads per layer.
        head_dim_k, head_dim_v: Elements per head of a key and of a value.
        sliding_window: Tokens that a windowed layer keeps; None when every layer is global.
        windowed_layers: Layers that keep at most ``sliding_window`` tokens.
        context_native: The model's own maximum (tokens).
        embedding_dim: Hidden size.
        vocab: Vocabulary size.
        chat_template: Source of the template, if it has one.
        capabilities: Of ``text, tools, reasoning, vision, embeddings, rerank``.
        think_markers: Opening and closing marker of reasoning, if the template has them.
        pooling: ``none``, ``mean``, ``cls``, ``last``, ``rank`` when the header says.
        quant: Name of the dominant tensor type, for example ``F16`` or ``Q4_K_M``.
        heads: Attention heads (query).
        feed_forward: Widest feed-forward activation of one token (experts in use together).
        experts: Experts per layer; 0 when dense.
        kv_elements: K and V elements one token adds over all growing, global layers. This, not
            ``kv_layers × kv_heads × …``, is exact when layers differ; 0 means "use the product".
        window_elements: The same for the windowed layers, which keep at most the window.
        state_bytes: Memory of one sequence that does not grow (recurrent layers).
        embedding_bytes: Of the token embedding; it stays in host memory, and is held a second
            time on the devices when ``tied``.
        tied: Input and output embedding are one tensor.
        repack_bytes: Weights that a CPU backend may copy into another layout.
        merges: Merges of the tokenizer (they cost memory of their own).
        thinking_variable: The template variable that switches thinking, if there is one.
        projector: The file with the image encoder beside the model.
        projector_bytes: Memory of that encoder: its weights, and the activations of one picture.
        model_type: The family's name in ``config.json``; empty for GGUF.
        quant_method: How quantised weights are stored, as engines call it (``awq``, ``fp8`` …).
        unsupported: What the model could do and no engine here offers, for example ``audio``.
        refusal: Why it is no model for us, in words; None for those that can be served.
        thinks_first: The generation prompt may open the think block; without a
            ``thinking_variable`` it always does, and thinking cannot be turned off.
        effort_levels: What ``reasoning_effort`` may be; empty when the template does not ask.
        sampling: The model's own defaults (``generation_config.json``).
        files: All files of the model, projector included.
    """

    model_id: str
    path: Path
    format: Format
    architecture: str
    parameters: int
    weight_bytes: int
    layers: int
    kv_layers: int
    kv_heads: int
    head_dim_k: int
    head_dim_v: int
    context_native: int
    embedding_dim: int
    vocab: int
    sliding_window: int | None = None
    windowed_layers: int = 0
    chat_template: str | None = None
    capabilities: tuple[str, ...] = ("text",)
    think_markers: tuple[str, str] | None = None
    pooling: str | None = None
    quant: str = ""
    heads: int = 0
    feed_forward: int = 0
    experts: int = 0
    kv_elements: int = 0
    window_elements: int = 0
    state_bytes: int = 0
    embedding_bytes: int = 0
    tied: bool = False
    repack_bytes: int = 0
    merges: int = 0
    thinking_variable: str | None = None
    projector: Path | None = None
    projector_bytes: int = 0
    files: tuple[Path, ...] = ()
    model_type: str = ""
    quant_method: str | None = None
    unsupported: tuple[str, ...] = ()
    refusal: str | None = None
    thinks_first: bool = False
    effort_levels: tuple[str, ...] = ()
    sampling: dict[str, float] = {}

    def elements_per_token(self) -> int:
        """K and V elements one more token costs in the layers that grow."""
        product = self.kv_layers * self.kv_heads * (self.head_dim_k + self.head_dim_v)
        return self.kv_elements or (0 if self.window_elements else product)
