"""How many tokens a model takes at most, by its own files.

Positions that a file states may be scaled: ``yarn`` and its kin multiply what the model was first
trained with, others have the product stated already. Source: ``_get_and_verify_max_len`` of
vLLM, which the models' own authors test against.
"""

from __future__ import annotations

from helexa.neuron.models.config import Config
from helexa.neuron.models.documents import Documents

_POSITIONS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length",
    "max_target_positions", "n_ctx", "model_max_length",
)  # fmt: skip
_STATED = frozenset({"su", "longrope", "llama3", "mrope", "default", "proportional", ""})
"""Scalings whose result is what the file states."""
_PADDED = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet"})
"""Their first two positions are taken by the padding."""
_MOST_FACTOR = 1024.0


def context_of(config: Config, documents: Documents, *, vectors: bool) -> int:
    """Tokens; 0 when the files do not say.

    Args:
        config: The language part.
        vectors: It makes vectors or scores; then sentence-transformers' own bound counts.

    Raises:
        BadModelFile: A member that cannot be.
    """
    model = config.text("model_type")
    stated = config.whole(*_POSITIONS, most=1 << 32)
    found = _scaled(config, model, stated)
    if model in _PADDED:
        found = max(0, found - 2)
    if vectors:
        own = Config.of(documents, "sentence_bert_config.json").whole("max_seq_length")
        return min(found or own, own or found)
    return found


def _scaled(config: Config, model: str, stated: int) -> int:
    scaling = _scaling(config)
    kind = scaling.text("rope_type") or scaling.text("type")
    if kind in _STATED or model.startswith(("gemma3", "gemma4")):
        return stated
    factor = min(scaling.number("factor", 1.0), _MOST_FACTOR)
    first = scaling.whole("original_max_position_embeddings", default=stated)
    if kind == "yarn":
        # Some state the product, some only what it was trained with.
        return max(stated, int(first * factor))
    return int(stated * max(1.0, factor))


def _scaling(config: Config) -> Config:
    for name in ("rope_scaling", "rope_parameters"):
        found = config.section(name)
        if isinstance(found.members.get("full_attention"), dict):  # one for each kind of layer
            return found.section("full_attention")
        if found.members:
            return found
    return config.section("rope_scaling")
