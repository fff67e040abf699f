"""A reader of GGUF headers: metadata and tensor list, nothing of the weights.

A file is read through one bounded window, so a header of ten megabytes (a large vocabulary) costs
one pass and little memory, and a file that shrinks while it is read is an error, not a signal.
Every count and length in the file is checked against what the file can still hold before it is
believed. Layout (all little-endian, versions 2 and 3)::

    "GGUF" version:u32 tensors:u64 pairs:u64
    pairs   × (key:string type:u32 value)
    tensors × (name:string dims:u32 dim:u64… type:u32 offset:u64)
    padding to general.alignment (32), then the data; offsets are relative to here

Source: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from helexa.core.errors import ServiceUnavailable, UnsupportedOperation
from helexa.neuron.models.cursor import Cursor, OutOfBytesError
from helexa.neuron.models.ggml import TYPES

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

MAX_TENSORS = 1_000_000
MAX_PAIRS = 65_536
MAX_NAME = 65_535
MAX_DIMS = 4
KEEP_ITEMS = 8_192
"""Longer arrays (vocabularies, merges) are walked over and only counted."""

_SCALARS: dict[int, struct.Struct] = {
    number: struct.Struct("<" + code) for number, code in enumerate("BbHhIif?")
} | {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_STRING, _ARRAY = 8, 9
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf$")


class BadModelFile(UnsupportedOperation):
    """A model's file cannot be used as it is; loading again will not help until it is replaced."""


class PartialModelFile(ServiceUnavailable, BadModelFile):
    """A part of a model is not there: it may be on its way, copied by somebody else."""

    lasting = False


class Counted(msgspec.Struct, frozen=True):
    """An array that was too long to keep."""

    count: int


class Tensor(msgspec.Struct, frozen=True):
    """One tensor as listed; ``shape`` is ggml's order (fastest first), ``size`` is bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    elements: int
    size: int


class Gguf(msgspec.Struct, frozen=True):
    """The header of a model: of one file, or of all shards together."""

    paths: tuple[Path, ...]
    version: int
    metadata: dict[str, Value | Counted]
    tensors: tuple[Tensor, ...]

    def integer(self, key: str, default: int = 0) -> int:
        """The integer at ``key``; of an array its maximum; ``default`` when absent."""
        value = self.metadata.get(key)
        if isinstance(value, list):
            numbers = [v for v in value if isinstance(v, int)]
            return max(numbers, default=default)
        return int(value) if isinstance(value, (int, float)) else default

    def per_layer(self, key: str, layers: int, default: int = 0) -> list[int]:
        """The integers at ``key``, one per layer; a single value holds for all."""
        value = self.metadata.get(key)
        if isinstance(value, list):
            numbers = [int(v) for v in value if isinstance(v, (int, float))]
            return (numbers + [numbers[-1] if numbers else default] * layers)[:layers]
        return [int(value) if isinstance(value, (int, float)) else default] * layers

    def text(self, key: str) -> str | None:
        """The string at ``key``."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def length(self, key: str) -> int:
        """Items of the array at ``key``; 0 when absent."""
        value = self.metadata.get(key)
        if isinstance(value, Counted):
            return value.count
        return len(value) if isinstance(value, list) else 0


def read_gguf(path: Path) -> Gguf:
    """Read a model's header; given any shard of a split model, that of all of them.

    Raises:
        BadModelFile: Missing, truncated (with the bytes it needs and has), not GGUF, a version or
            a tensor type we do not know, or counts no real file has.
    """
    return joined([_read_file(p) for p in shards(path)])


def read_prefix(path: Path, size: int, prefix: bytes) -> Gguf | int:
    """The header of one file of which only the beginning is at hand; pure.

    Args:
        path: Its name, for messages and the result.
        size: Bytes of the whole file.
        prefix: The first bytes of it.

    Returns:
        The header, or how many bytes of the file it takes at the least.

    Raises:
        BadModelFile: The file as a whole cannot be right.
    """
    try:
        return _Reader(path, Cursor(io.BytesIO(prefix), size)).read()
    except OutOfBytesError as short:
        if short.needs > size:
            raise _truncated(path, short) from short
        return short.needs


def joined(parts: Sequence[Gguf]) -> Gguf:
    """The header of a split model, from those of all its shards in order."""
    first = parts[0]
    return msgspec.structs.replace(
        first,
        paths=tuple(p for part in parts for p in part.paths),
        tensors=tuple(t for part in parts for t in part.tensors),
    )


def shards(path: Path) -> list[Path]:
    """All files of the model ``path`` belongs to, in order; just ``path`` if it is whole.

    Raises:
        BadModelFile: A shard is missing.
    """
    match = _SHARD.match(path.name)
    if match is None:
        return [path]
    total = int(match["total"])
    names = [f"{match['stem']}-{n:05d}-of-{total:05d}.gguf" for n in range(1, total + 1)]
    for n, name in enumerate(names, 1):
        if not path.with_name(name).is_file():
            raise PartialModelFile(
                f"model file {path.with_name(name)} is missing: shard {n} of "
                f"{total}. Fetch all shards into one folder."
            )
    return [path.with_name(name) for name in names]


def _read_file(path: Path) -> Gguf:
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            return _Reader(path, Cursor(file, size)).read()
    except OutOfBytesError as short:
        raise _truncated(path, short) from short
    except OSError as error:
        raise BadModelFile(
            f"model file {path} cannot be read: {error.strerror}. "
            "Check the path and its permissions."
        ) from error


def _truncated(path: Path, short: OutOfBytesError) -> BadModelFile:
    return PartialModelFile(
        f"model file {path} is truncated: its header needs at least "
        f"{short.needs} bytes, the file has {short.has}. Fetch it again."
    )


class _Reader:
    """One pass over one file."""

    def __init__(self, path: Path, cursor: Cursor) -> None:
        self._path = path
        self._at = cursor

    def read(self) -> Gguf:
        version, tensors, pairs = self._preamble()
        metadata: dict[str, Value | Counted] = {}
        for _ in range(pairs):
            key = self._string(MAX_NAME, "a key")
            metadata[key] = self._value(self._at.u32())
        listed = tuple(self._tensor() for _ in range(tensors))
        self._check_data(metadata.get("general.alignment", 32), listed)
        return Gguf((self._path,), version, metadata, listed)

    def _preamble(self) -> tuple[int, int, int]:
        if self._at.take(4) != b"GGUF":
            raise self._bad("it does not begin with GGUF")
        version = self._at.u32()
        if version not in (2, 3):
            swapped = version & 0xFFFF == 0
            raise self._bad(
                "it is big-endian" if swapped else f"its version is {version}, readable are 2 and 3"
            )
        tensors, pairs = self._at.u64(), self._at.u64()
        # The smallest entries: a pair is 8 + 4 + 1 bytes, a tensor 8 + 4 + 4 + 8.
        self._believe(tensors, 24, MAX_TENSORS, "tensors")
        self._believe(pairs, 13, MAX_PAIRS, "metadata pairs")
        return version, tensors, pairs

    def _value(self, kind: int) -> Value | Counted:
        if kind == _STRING:
            return self._string(self._at.size, "a string")
        if kind == _ARRAY:
            return self._array()
        scalar = self._scalar(kind)
        value: int | float | bool = scalar.unpack(self._at.take(scalar.size))[0]
        return value

    def _array(self) -> Value | Counted:
        kind, count = self._at.u32(), self._at.u64()
        if kind == _STRING:
            self._believe(count, 8, self._at.size, "strings of an array")
            if count > KEEP_ITEMS:
                self._at.skip_strings(count)
                return Counted(count)
            return [self._string(self._at.size, "a string") for _ in range(count)]
        scalar = self._scalar(kind)
        self._believe(count, scalar.size, self._at.size, "items of an array")
        if count > KEEP_ITEMS:
            self._at.skip(count * scalar.size)
            return Counted(count)
        data = self._at.take(count * scalar.size)
        return [item for (item,) in scalar.iter_unpack(data)]

    def _scalar(self, kind: int) -> struct.Struct:
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise self._bad(f"a value has the unknown type {kind}")
        return scalar

    def _tensor(self) -> Tensor:
        name = self._string(MAX_NAME, "a tensor's name")
        dims = self._at.u32()
        if not 0 < dims <= MAX_DIMS:
            raise self._bad(f"tensor {name} has {dims} dimensions")
        shape = tuple(self._at.u64() for _ in range(dims))
        number, offset = self._at.u32(), self._at.u64()
        kind = TYPES.get(number)
        if kind is None:
            raise self._bad(f"tensor {name} has the unknown type {number}")
        elements = 1
        for extent in shape:
            elements *= extent
        return Tensor(name, shape, kind.name, offset, elements, kind.bytes_for(elements))

    def _string(self, most: int, what: str) -> str:
        length = self._at.u64()
        self._believe(length, 1, most, f"bytes of {what}")
        return self._at.take(length).decode("utf-8", "replace")

    def _check_data(self, alignment: object, tensors: tuple[Tensor, ...]) -> None:
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._bad(f"its alignment is {alignment!r}, not a power of two")
        start = -(-self._at.at // alignment) * alignment
        needs = max((start + t.offset + t.size for t in tensors), default=self._at.at)
        if needs > self._at.size:
            raise PartialModelFile(
                f"model file {self._path} is truncated: its tensors need {needs} "
                f"bytes, the file has {self._at.size}. Fetch it again."
            )

    def _believe(self, count: int, least: int, most: int, what: str) -> None:
        """Refuse a count above ``most``, or whose items of ``least`` bytes cannot follow."""
        if count > most:
            raise self._bad(f"it claims {count} {what}")
        self._at.need(count * least)

    def _bad(self, why: str) -> BadModelFile:
        return BadModelFile(
            f"model file {self._path} is not a usable GGUF file: {why}. "
            "Fetch it again or convert it with a current converter."
        )
