"""What a model of a safetensors folder can do, by its architecture and what lies beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from helexa.neuron.models.config import Config
from helexa.neuron.models.documents import Documents
from helexa.neuron.models.template import TemplateTraits

ENCODERS = frozenset({
    "bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "distilbert", "camembert", "electra",
    "deberta", "deberta-v2", "mpnet", "modernbert", "nomic_bert", "new", "gte", "eurobert",
    "neobert", "albert", "ernie", "jina_bert_v2", "snowflake_arctic_embed",
})  # fmt: skip
_SPEECH = frozenset({
    "whisper", "wav2vec2", "wav2vec2-bert", "hubert", "speecht5", "seamless_m4t",
    "seamless_m4t_v2", "moonshine", "parakeet_ctc", "parakeet_tdt", "kyutai_speech_to_text",
    "speech_to_text", "sew", "unispeech",
})  # fmt: skip
_SOUND = frozenset({"bark", "musicgen", "encodec", "vits", "dia", "csm", "mimi", "fastspeech2"})
_PICTURES = frozenset({
    "vit", "clip", "siglip", "siglip2", "sam", "sam2", "dinov2", "dinov3_vit", "detr", "swin",
    "convnext", "beit", "resnet", "depth_anything", "owlv2", "blip",
})  # fmt: skip
_SEES = ("vision_config", "vision_tower", "mm_vision_tower", "img_processor", "vit_config",
         "visual")  # fmt: skip
_HEARS = ("audio_config", "audio_processor", "audio_tower", "speech_config")
_SCORES = re.compile(r"For(SequenceClassification|Ranking|Rerank)")
_POOLINGS = (
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_lasttoken", "last"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean"),
)
_MODES = {"cls": "cls", "lasttoken": "last", "mean": "mean", "mean_sqrt_len_tokens": "mean"}


class Abilities(msgspec.Struct, frozen=True):
    """What it can.

    Args:
        capabilities: Of ``text, tools, reasoning, vision, embeddings, rerank``; none when no
            engine of ours has a use for it.
        pooling: How vectors or scores are made of tokens.
        unsupported: What it could do beyond, and no engine here offers: ``audio``.
        refusal: Why it is no model for us, in words.
    """

    capabilities: tuple[str, ...]
    pooling: str | None = None
    unsupported: tuple[str, ...] = ()
    refusal: str | None = None


def abilities(config: Config, documents: Documents, traits: TemplateTraits) -> Abilities:
    """Of the whole ``config.json``; pure.

    Raises:
        BadModelFile: A member that cannot be.
    """
    kind, architectures = config.text("model_type"), config.words("architectures")
    refused = _refused(config, kind, architectures)
    if refused is not None:
        return refused
    if any(_SCORES.search(name) for name in architectures):
        return _scoring(config)
    pooling = _pooling(documents)
    if pooling is not None or is_encoder(config):
        return Abilities(("embeddings",), pooling or _usual_pooling(kind))
    sees = _has(config, _SEES, "vision_config", "image_embd_layer")
    hears = _has(config, _HEARS, "audio_config", "audio_embd_layer")
    extras = (("tools", traits.tools), ("reasoning", bool(traits.markers)), ("vision", sees))
    found = ("text", *(name for name, has in extras if has))
    return Abilities(found, None, ("audio",) if hears or traits.audio else ())


def is_encoder(config: Config) -> bool:
    """Whether it reads its input at once, and writes nothing."""
    kind = config.language().text("model_type")
    architectures = config.words("architectures")
    writes = any("CausalLM" in name or "ForConditionalGeneration" in name for name in architectures)
    bare = bool(architectures) and all(name.endswith("Model") for name in architectures)
    return (kind in ENCODERS and not writes) or (bare and kind.endswith("bert"))


def _refused(config: Config, kind: str, architectures: list[str]) -> Abilities | None:
    named = architectures[0] if architectures else kind
    for kinds, does, unsupported in (
        (_SPEECH, "turns speech into text", ("audio",)),
        (_SOUND, "makes sounds", ("audio",)),
        (_PICTURES, "looks at pictures and writes nothing", ()),
    ):
        if kind in kinds:
            return Abilities((), None, unsupported, f"it is {named}, which {does}")
    if config.flag("is_encoder_decoder"):
        return Abilities((), None, (), f"it is {named}, an encoder–decoder")
    if any("ForImageClassification" in name or "ForTokenClassification" in name
           for name in architectures):  # fmt: skip
        return Abilities((), None, (), f"it is {named}, a classifier")
    return None


def _scoring(config: Config) -> Abilities:
    """One label is a score of relevance; several are classes, which nobody here asks for."""
    labels = config.whole("num_labels")
    if not labels:
        named = config.members.get("id2label")
        labels = len(named) if isinstance(named, dict) else 2
    if labels == 1:
        return Abilities(("rerank",), "rank")
    return Abilities((), None, ("classification",), f"it sorts texts into {labels} classes")


def _pooling(documents: Documents) -> str | None:
    """How sentence-transformers pools; None when it is no such model."""
    if documents.has("1_Pooling/config.json"):
        stated = documents.members("1_Pooling/config.json")
        mode = stated.get("pooling_mode")
        if isinstance(mode, str):
            return _MODES.get(mode, "mean")
        return next((name for key, name in _POOLINGS if stated.get(key)), "mean")
    modules = documents.value("modules.json")
    kinds = [str(m.get("type", "")) for m in modules if isinstance(m, dict)] if isinstance(
        modules, list) else []  # fmt: skip
    return "mean" if any(kind.endswith("Pooling") for kind in kinds) else None


def _usual_pooling(kind: str) -> str:
    return "mean" if kind in ("nomic_bert", "mpnet", "distilbert") else "cls"


def _has(config: Config, names: Iterable[str], of_thinker: str, of_embedding: str) -> bool:
    """Whether a sense is stated: by itself, in an omni model's thinker, or as Phi does."""
    nested = (("thinker_config", of_thinker), ("embd_layer", of_embedding))
    within = any(
        bool(inner.get(name))
        for section, name in nested
        if isinstance(inner := config.members.get(section), dict)
    )
    return within or any(config.members.get(name) for name in names)
