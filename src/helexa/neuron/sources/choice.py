"""Which files of a repository or folder are the model; pure, by name alone.

::

    README.md  m-Q4_K_M.gguf  m-Q8_0-00001-of-00002.gguf  m-Q8_0-00002-of-00002.gguf
    mmproj-m-F16.gguf  imatrix.dat
        │ quant "q8_0"
        ▼
    mmproj-m-F16.gguf  m-Q8_0-00001-of-00002.gguf  m-Q8_0-00002-of-00002.gguf

A GGUF model is the shards of one quant and one image projector. A safetensors model is its
configuration, tokenizer, template and shards; copies of the weights in other formats stay where
they are. Companions come first and weights last: whoever has the weights has everything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from helexa.core.errors import ModelNotFound

USUAL = "Q4_K_M"
"""Taken of several when none is asked for, as other tools for these files do."""

_SHARD = re.compile(r"-(?P<n>\d{5})-of-(?P<of>\d{5})(?=\.(?:gguf|safetensors)$)")
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(?P<quant>(?:UD-)?(?:(?:IQ|TQ|Q)\d(?:_[A-Za-z0-9]+)*|BF16|FP?16|FP?32|MXFP4(?:_MOE)?))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_COMPANIONS = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens"
    r"|vocab|preprocessor_config|processor_config|video_preprocessor_config|chat_template"
    r"|modules|sentence_bert_config|config_sentence_transformers|tekken|params"
    r"|[\w.-]+\.safetensors\.index)\.json"
    r"|merges\.txt|vocab\.txt|[\w.-]+\.(?:model|tiktoken|jinja)|\d_\w+/config\.json"
)
_PROJECTORS = ("F16", "BF16", "F32", "Q8_0")
"""Image projectors by preference: small enough not to matter, exact enough not to be seen."""


class Choice(msgspec.Struct, frozen=True):
    """The files of one model.

    Args:
        files: Companions first, then the weights in the order of their shards.
        quant: Of the chosen GGUF files.
        quants: What there is to choose from, beside a folder of safetensors too.
        first: The weights' first file; None for a folder of safetensors.
    """

    files: tuple[str, ...]
    quant: str | None = None
    quants: tuple[str, ...] = ()
    first: str | None = None


def choose_files(where: str, names: Sequence[str], quant: str | None) -> Choice:
    """The files of the model that ``quant`` means.

    Args:
        where: The repository or folder, for messages.
        names: All its files, relative, with ``/``.
        quant: As people write it, or the name of a file; None is the only one, or the usual one.

    Raises:
        ModelNotFound: There is none, or several; names the nearest and all there are.
    """
    groups = _gguf_groups(names)
    folder = _safetensors(where, names)
    if groups and not (folder and (quant is None or not _matches(groups, quant))):
        return _gguf(where, names, groups, quant)
    if folder:
        return Choice(folder, quants=_quants(groups))
    raise ModelNotFound(_no_model(where, names), param="model_id")


def quant_in(name: str) -> str | None:
    """The quant that a file's name says, in capitals; the last one it has, or its folder's."""
    stem = _SHARD.sub("", name).removesuffix(".gguf")
    for part in reversed(stem.split("/")):
        found = [match["quant"].upper() for match in _QUANT.finditer(part)]
        if found:
            return found[-1]
    return None


def is_meant(asked: str, names: Iterable[str]) -> bool:
    """Whether ``asked`` means one of these GGUF files, by its name or by its quant."""
    return bool(_matches(_gguf_groups(names), asked))


def plain_quant(quant: str) -> str:
    """One spelling: ``Q4-K-M`` is ``q4_k_m``."""
    return quant.strip().lower().replace("-", "_")


def is_beside_weights(name: str) -> bool:
    """Whether a GGUF file goes with weights and is none: an image projector, what quants were
    made with."""
    base = name.rpartition("/")[2].lower()
    return "mmproj" in base or "imatrix" in base


def _gguf(
    where: str, names: Sequence[str], groups: dict[str, list[str]], asked: str | None
) -> Choice:
    labels = {stem: quant_in(stem) for stem in groups}
    quants = _quants(groups)
    wanted = list(groups) if asked is None else _matches(groups, asked)
    if asked is None and len(wanted) > 1:
        wanted = [stem for stem in wanted if labels[stem] == USUAL]
    if len(wanted) != 1:
        raise ModelNotFound(_not_one(where, groups, quants, wanted, asked), param="quant")
    shards = _in_order(where, groups[wanted[0]])
    label = labels[wanted[0]]
    projector = _projector(names, shards[0])
    return Choice((*projector, *shards), label, quants, shards[0])


def _quants(groups: Iterable[str]) -> tuple[str, ...]:
    """What there is in GGUF, by quant or by name."""
    return tuple(dict.fromkeys(quant_in(stem) or stem for stem in groups))


def _gguf_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Weights in GGUF: name without shard and suffix → its files."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.endswith(".gguf") and not is_beside_weights(name):
            groups.setdefault(_SHARD.sub("", name).removesuffix(".gguf"), []).append(name)
    return groups


def _matches(groups: dict[str, list[str]], asked: str) -> list[str]:
    """The groups that ``asked`` means: a quant, with or without its ``UD-``, or a file."""
    wanted = plain_quant(asked)
    rules: tuple[Callable[[str], bool], ...] = (
        lambda stem: asked in (*groups[stem], stem, *(n.rpartition("/")[2] for n in groups[stem])),
        lambda stem: _plain(quant_in(stem)) == wanted,
        lambda stem: _plain(quant_in(stem)).removeprefix("ud_") == wanted,
        lambda stem: quant_in(stem) is None and wanted in _plain(stem),
    )
    for rule in rules:
        found = [stem for stem in groups if rule(stem)]
        if found:
            return found
    return []


def _plain(text: str | None) -> str:
    return plain_quant(text or "")


def _in_order(where: str, files: list[str]) -> list[str]:
    """The shards, first to last.

    Raises:
        ModelNotFound: One is missing.
    """
    found = [_SHARD.search(name) for name in files]
    first = found[0]
    if first is None:
        return files[:1]
    total = int(first["of"])
    there = {int(match["n"]) for match in found if match}
    lacking = sorted(set(range(1, total + 1)) - there)
    if lacking:
        raise ModelNotFound(
            f"{where} has {len(there)} of the {total} shards of {files[0]}; missing: "
            f"{', '.join(map(str, lacking))}. Fetch them, or name another quant.",
            param="quant",
        )
    return files


def _projector(names: Iterable[str], beside: str) -> tuple[str, ...]:
    """The image projector that goes with the weights: in their folder, or at the top."""
    folder = beside.rpartition("/")[0]
    found = [
        name
        for name in sorted(names)
        if name.endswith(".gguf")
        and "mmproj" in name.rpartition("/")[2].lower()
        and name.rpartition("/")[0] in (folder, "")
    ]
    ranks = {label: rank for rank, label in enumerate(_PROJECTORS)}
    found.sort(key=lambda name: ranks.get(quant_in(name) or "", len(ranks)))
    return tuple(found[:1])


def _safetensors(where: str, names: Sequence[str]) -> tuple[str, ...]:
    """Configuration, tokenizer, template and one set of weights; nothing without both."""
    weights = _weights([n for n in names if n.endswith(".safetensors") and "/" not in n])
    weights = _in_order(where, weights) if len(weights) > 1 else weights
    if not weights or "config.json" not in names:
        return ()
    others = {n for n in names if n.endswith(".safetensors.index.json")}
    index = _SHARD.sub("", weights[0]) + ".index.json"
    dropped = others - {index}
    companions = [n for n in sorted(names) if _COMPANIONS.fullmatch(n) and n not in dropped]
    modules = [n for n in names if re.fullmatch(r"\d_\w+/model\.safetensors", n)]
    return (*companions, *sorted(modules), *weights)


def _weights(names: list[str]) -> list[str]:
    """One set of weights: ``model.safetensors`` in one or many files before any other set."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        if not name.startswith(("adapter", "optimizer", "training")):
            groups.setdefault(_SHARD.sub("", name), []).append(name)
    if not groups:
        return []
    best = min(groups, key=lambda group: (group != "model.safetensors", "consolidated" in group))
    shards = [name for name in groups[best] if _SHARD.search(name)]
    return shards or groups[best]


def _not_one(
    where: str,
    groups: dict[str, list[str]],
    quants: tuple[str, ...],
    wanted: list[str],
    asked: str | None,
) -> str:
    there = ", ".join(quants)
    if asked is None:
        files = ", ".join(files[0] for files in groups.values())
        return f"{where} has {len(groups)} models, and none was named: {files}. Name the quant."
    if wanted:
        files = ", ".join(groups[stem][0] for stem in wanted)
        return f"{where} has {len(wanted)} models of quant {asked}: {files}. Name the file."
    upper = {quant.upper(): quant for quant in quants}
    near = difflib.get_close_matches(asked.upper(), upper, n=1, cutoff=0.0)
    hint = f" The nearest is {upper[near[0]]}." if near else ""
    return f"{where} has no file of quant {asked}.{hint} It has: {there}."


def _no_model(where: str, names: Sequence[str]) -> str:
    if not names:
        return f"{where} is empty: there is no file in it. Check the name."
    kinds: dict[str, int] = {}
    for name in names:
        kind = "." + name.rpartition(".")[2] if "." in name else name
        kinds[kind] = kinds.get(kind, 0) + 1
    most = sorted(kinds, key=lambda kind: -kinds[kind])[:6]
    seen = ", ".join(f"{kinds[kind]} {kind}" for kind in most)
    return (
        f"{where} has no .gguf file, and no config.json with .safetensors: {seen}. Only these two "
        "kinds of model can be run; name a repository that has one."
    )
