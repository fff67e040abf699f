"""Facts of a model of which only a listing is here: headers are read where the files lie.

::

    a folder   ─▶ its small files whole, the weights by their sizes ──┐
    GGUF files ─▶ the beginning of each shard, as much as its header ─┴─▶ ModelFacts

What it costs is what the headers are: kilobytes for a folder, megabytes for a vocabulary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from helexa.neuron.models.documents import Documents, gathered, oversized
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.folder import Weights, folder_facts
from helexa.neuron.models.gguf import BadModelFile, Gguf, joined, read_prefix
from helexa.neuron.models.inspect import facts_of, with_projector
from helexa.neuron.models.projector import Projector

FIRST_BYTES = 1 << 20
MOST_BYTES = 64 << 20
"""Of one header; the largest vocabularies take twenty."""

Peek = Callable[[str, int, int], Awaitable[bytes]]
"""Bytes of a file: name, start, length; fewer at its end."""


class Remote(msgspec.Struct, frozen=True):
    """The files of a model: names and sizes, companions first, weights in order."""

    model_id: str
    where: str
    files: Sequence[tuple[str, int]]


async def remote_facts(model: Remote, peek: Peek) -> ModelFacts:
    """Facts of a model that is somewhere else. Its paths are only names.

    Raises:
        BadModelFile: A file states what cannot be.
        HelexaError: What ``peek`` raises.
    """
    projectors = [name for name, _ in model.files if _is_projector(name)]
    shards = [f for f in model.files if f[0].endswith(".gguf") and f[0] not in projectors]
    if not shards:
        return await _folder(model, peek)
    parts = [await _header(model.where, name, size, peek) for name, size in shards]
    # A header of a hundred thousand strings takes a moment to go over.
    facts = await asyncio.to_thread(facts_of, joined(parts), model.model_id)
    if projectors:
        size = dict(model.files)[projectors[0]]
        facts = with_projector(facts, Projector(Path(projectors[0]), 0, True, size))
    files = tuple(Path(name) for name, _ in model.files)
    return msgspec.structs.replace(facts, files=files)


async def _folder(model: Remote, peek: Peek) -> ModelFacts:
    sizes = dict(model.files)
    texts = {}
    for name in gathered(sizes):
        if oversized(sizes[name]):
            raise Documents(model.where, sizes, {}).bad(name, f"it has {sizes[name]} bytes")
        texts[name] = await peek(name, 0, sizes[name])
    weights = sum(size for name, size in model.files if name.endswith(".safetensors"))
    documents = Documents(model.where, sizes, texts)
    return folder_facts(documents, Weights(0, weights), model.model_id, Path(model.where))


async def _header(where: str, name: str, size: int, peek: Peek) -> Gguf:
    """The header of one shard, asking for twice as much until it is whole."""
    path, known, wanted = Path(where) / name, b"", FIRST_BYTES
    while True:
        upto = min(wanted, size)
        known += await peek(name, len(known), upto - len(known))
        read = await asyncio.to_thread(read_prefix, path, size, known)
        if isinstance(read, Gguf):
            return read
        if len(known) < upto or read > MOST_BYTES:
            raise BadModelFile(
                f"model file {path} cannot be used: its header takes {read} bytes or more. "
                "Name another model."
            )
        wanted = max(2 * len(known), read)


def _is_projector(name: str) -> bool:
    return name.endswith(".gguf") and "mmproj" in name.rpartition("/")[2].lower()
