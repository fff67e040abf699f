"""How the weights of a safetensors folder are stored, by what its files say."""

from __future__ import annotations

import msgspec

from helexa.neuron.models.config import Config
from helexa.neuron.models.documents import Documents


class Quantised(msgspec.Struct, frozen=True):
    """The storage of weights.

    Args:
        name: For people: ``AWQ 4-bit``, ``BF16``.
        method: As engines call it (``awq``, ``gptq``, ``fp8``, ``compressed-tensors`` …); None
            when the weights are stored as they are computed with.
        bits: Of a quantised weight; 0 when unknown.
    """

    name: str
    method: str | None = None
    bits: int = 0


def quantised(config: Config, language: Config, documents: Documents) -> Quantised:
    """What ``config.json`` or the quantiser's own file says.

    Raises:
        BadModelFile: A member that cannot be.
    """
    stated = config.section("quantization_config")
    if not stated.members:
        stated = language.section("quantization_config")
    if not stated.members:
        stated = config.section("compression_config")
    if not stated.members and documents.has("quantize_config.json"):
        members = {"quant_method": "gptq", **documents.members("quantize_config.json")}
        stated = Config(documents, "quantize_config.json", members)
    if not stated.members and documents.has("hf_quant_config.json"):
        inner = Config.of(documents, "hf_quant_config.json").section("quantization")
        return _named("modelopt", inner, inner.text("quant_algo"))
    method = stated.text("quant_method").lower()
    if not method:
        return Quantised(_dtype(config, language))
    return _named(method, stated, "")


def _named(method: str, stated: Config, algorithm: str) -> Quantised:
    bits = _bits(method, stated, algorithm)
    name = (algorithm or method).upper()
    spelled = f"{name} {bits}-bit" if bits and str(bits) not in name else name
    return Quantised(spelled, method, bits)


def _bits(method: str, stated: Config, algorithm: str) -> int:
    if bits := stated.whole("bits", "w_bit", "wbits", most=64):
        return bits
    if stated.flag("load_in_4bit") or stated.flag("_load_in_4bit"):
        return 4
    if stated.flag("load_in_8bit") or stated.flag("_load_in_8bit"):
        return 8
    groups = stated.section("config_groups")
    for name in [n for n, group in groups.members.items() if isinstance(group, dict)][:8]:
        if bits := groups.section(name).section("weights").whole("num_bits", most=64):
            return bits
    said = (method + algorithm).lower()
    return next(
        (n for word, n in (("fp8", 8), ("fp4", 4), ("int8", 8), ("int4", 4)) if word in said), 0
    )


def _dtype(config: Config, language: Config) -> str:
    named = ""
    for part in (config, language):
        named = named or part.text("dtype") or part.text("torch_dtype")
    return {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}.get(named, named.upper())
