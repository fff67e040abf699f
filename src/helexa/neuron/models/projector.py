"""The image encoder of a model: the ``mmproj`` file beside its weights.

::

    picture ─▶ patches ─▶ encoder ─▶ projection ─▶ as wide as the model's embedding
               patch²                projection_dim == embedding_length

A folder may hold several models, so a projector belongs to the model whose width it projects to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from helexa.neuron.models.gguf import BadModelFile, Gguf, read_gguf

_DYNAMIC = frozenset({
    "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "pixtral", "lightonocr", "kimivl",
    "kimik25", "glm4v", "paddleocr", "dots_ocr", "hunyuanvl",
})  # fmt: skip
"""Encoders whose patches grow with the picture."""
_DYNAMIC_SIDE = 1288
"""Pixels of the side of the square that llama.cpp reserves memory for in those."""
_FLOAT = 4


class Projector(msgspec.Struct, frozen=True):
    """What a projector's header says.

    Args:
        width: Elements of one image token; 0 where the file does not say.
        sees: It encodes images (others encode sound).
        memory_bytes: Its weights, and the activations of the largest picture that memory is
            reserved for.
    """

    path: Path
    width: int
    sees: bool
    memory_bytes: int

    def suits(self, embedding: int) -> bool:
        """Whether it projects to a model's width, or to several of it (one for every layer that
        takes image features)."""
        return bool(self.width) and self.width % max(1, embedding) == 0


def find_projector(path: Path, embedding: int) -> Projector | None:
    """The projector of the model in ``path``: beside it, or a folder above.

    Args:
        embedding: The model's width.

    Raises:
        BadModelFile: One lies beside it and cannot be read, and no other will do: without it the
            model would be blind, and nobody be told.
    """
    beside, broken = _readable(sorted(path.parent.glob("*mmproj*.gguf")), path)
    above, _ = _readable(sorted(path.parent.parent.glob("*mmproj*.gguf")), path)
    fitting = [found for found in (*beside, *above) if found.suits(embedding)]
    # Files of an early converter do not say how wide they project.
    untold = [found for found in beside if not found.width]
    if broken and not fitting and not untold:
        raise broken[0]
    return next(iter(fitting), None) or next(iter(untold), None)


def _readable(paths: Iterable[Path], model: Path) -> tuple[list[Projector], list[BadModelFile]]:
    """The projectors among ``paths``, and why others cannot be read."""
    found: list[Projector] = []
    broken: list[BadModelFile] = []
    for path in paths:
        if path == model:
            continue
        try:
            header = read_gguf(path)
        except BadModelFile as error:
            broken.append(error)
            continue
        if header.text("general.architecture") == "clip":  # whatever its name says
            found.append(projector_of(header, path))
    return found, broken


def projector_of(header: Gguf, path: Path) -> Projector:
    """What the header says; pure."""
    sees = bool(header.metadata.get("clip.has_vision_encoder", True))
    early = bool(header.metadata.get("clip.has_llava_projector"))
    weights = sum(tensor.size for tensor in header.tensors)
    return Projector(
        path=path,
        width=0 if early else header.integer("clip.vision.projection_dim"),
        sees=sees,
        memory_bytes=weights + (_activations(header) if sees else 0),
    )


def _activations(header: Gguf) -> int:
    """Floats of one pass over all patches of a picture: the residual stream, queries, keys and
    values, the feed-forward and its input, and the pixels themselves."""
    side = header.integer("clip.vision.image_size")
    if header.text("clip.projector_type") in _DYNAMIC:
        side = max(side, _DYNAMIC_SIDE)
    patch = header.integer("clip.vision.patch_size") or 14
    hidden = header.integer("clip.vision.embedding_length")
    wide = 5 * hidden + 3 * header.integer("clip.vision.feed_forward_length")
    return (side // patch) ** 2 * _FLOAT * (wide + 3 * patch * patch)
