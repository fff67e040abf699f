"""Where the files of a model come from.

::

    "hf:org/name" ─parse─▶ ModelRef("hf", "org/name") ─source of that scheme─▶ a file on disk
    "org/name", "/a/b.gguf", "qwen3:0.6b"            ─each source in order──▶

The scheme only chooses the source and never becomes part of the id a model is served under. Hubs
are further classes with the ``Source`` protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from helexa.core.errors import InvalidRequestBody, ModelNotFound

Progress = Callable[[float], None]
"""Called with the fraction of the files that is here, 0..1."""

_SCHEME = re.compile(r"^(?P<scheme>[a-z][a-z0-9_-]*):(?P<name>.+)$")
_LATER_SHARD = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


class ModelRef(msgspec.Struct, frozen=True):
    """A parsed model id: ``name`` is what it is served under; no scheme means any source."""

    scheme: str | None
    name: str


class Source(Protocol):
    """One place that has models."""

    def claims(self, name: str) -> bool:
        """Whether ``name`` can only mean a model of this source; pure, no I/O."""

    async def locate(self, name: str, quant: str | None, progress: Progress) -> Path:
        """The model's file (first shard) or folder on disk, fetched if need be.

        Raises:
            ModelNotFound: It is not there; the message says where was looked.
            ServiceUnavailable: The source cannot be reached.
        """


def parse_model_id(text: str, schemes: frozenset[str]) -> ModelRef:
    """Split ``[scheme:]name``; pure.

    A prefix counts as a scheme when it is one of ``schemes``, so tags (``qwen3:0.6b``) stay part
    of the name.

    Raises:
        InvalidRequestBody: Empty, or ``unknown:org/name``.
    """
    if not text.strip():
        raise InvalidRequestBody("model_id is empty. Name a model.", param="model_id")
    match = _SCHEME.match(text)
    if match is None:
        return ModelRef(None, text)
    if match["scheme"] in schemes:
        return ModelRef(match["scheme"], match["name"])
    if "/" in match["name"]:
        raise InvalidRequestBody(
            f"model_id {text!r} names the unknown source {match['scheme']!r}. Known are "
            f"{', '.join(sorted(schemes))}; add [sources.{match['scheme']}] to use another.",
            param="model_id",
        )
    return ModelRef(None, text)


class Sources:
    """All configured sources; ``default`` gets what none of them claims.

    Args:
        by_scheme: In the order they are asked.
        default: Scheme for plain ``org/name`` ids.
    """

    def __init__(self, by_scheme: Mapping[str, Source], default: str) -> None:
        self._by_scheme = dict(by_scheme)
        self._default = default

    def parse(self, model_id: str) -> ModelRef:
        """The reference behind ``model_id``; its ``name`` is the id to serve under."""
        return parse_model_id(model_id, frozenset(self._by_scheme))

    async def locate(
        self,
        model_id: str,
        *,
        source: str | None = None,
        quant: str | None = None,
        progress: Progress = lambda _: None,
    ) -> Path:
        """The file or folder of ``model_id``.

        Args:
            source: A scheme, a scheme with another name (``hf:org/other``), or a path; overrides
                what the id itself says.

        Raises:
            ModelNotFound: No source has it; the message says where was looked.
            InvalidRequestBody: Unknown scheme.
        """
        ref = self.parse(model_id)
        if source in self._by_scheme:
            ref = ModelRef(source, ref.name)
        elif source:
            ref = self.parse(source)
        return await self._choose(ref).locate(ref.name, quant, progress)

    def _choose(self, ref: ModelRef) -> Source:
        if ref.scheme is not None:
            return self._by_scheme[ref.scheme]
        claimed = (s for s in self._by_scheme.values() if s.claims(ref.name))
        return next(claimed, self._by_scheme[self._default])


class BuiltIn:
    """The models that ship with the package.

    Args:
        files: Id → file.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)

    def claims(self, name: str) -> bool:
        return name in self._files

    async def locate(self, name: str, quant: str | None, progress: Progress) -> Path:
        del quant
        path = self._files.get(name)
        if path is None:
            raise ModelNotFound(
                f"model {name} is not built in. Built in: {', '.join(sorted(self._files))}.",
                param="model_id",
            )
        progress(1.0)
        return path


class LocalFiles:
    """Paths of files and folders, and names of files under ``roots``."""

    def __init__(self, roots: tuple[Path, ...] = ()) -> None:
        self._roots = roots

    def claims(self, name: str) -> bool:
        return name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf")

    async def locate(self, name: str, quant: str | None, progress: Progress) -> Path:
        path = await asyncio.to_thread(self._find, name, quant)
        progress(1.0)
        return path

    def _find(self, name: str, quant: str | None) -> Path:
        direct = Path(name).expanduser()
        places = [direct] if self.claims(name) or not self._roots else []
        places += [root / name for root in self._roots]
        for place in places:
            if place.is_file():
                return place
            if place.is_dir():
                return pick_file(place, quant)
        looked = ", ".join(str(place.absolute()) for place in places)
        raise ModelNotFound(f"model {name} was not found. Looked for {looked}.", param="model_id")


def pick_file(folder: Path, quant: str | None) -> Path:
    """The one model in ``folder``: a GGUF file (first shard), or the folder if it is safetensors.

    Raises:
        ModelNotFound: None, or several and ``quant`` does not single one out.
    """
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    files = sorted(
        file
        for file in folder.glob("*.gguf")
        if "mmproj" not in file.name and not _LATER_SHARD.search(file.name)
    )
    wanted = [f for f in files if quant is None or quant.lower() in f.name.lower()]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(f.name for f in files) or "no .gguf file"
    kind = f"of quant {quant}" if quant else "of a model"
    count = f"{len(wanted)} files" if wanted else "no file"
    raise ModelNotFound(
        f"folder {folder} has {count} {kind}, not one: {names}. Name the file, or its quant.",
        param="model_id",
    )
