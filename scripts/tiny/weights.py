"""Random weights, and the steps that every file ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

DEVIATION = 0.02
"""The usual deviation of weights that nobody has trained."""


class Random:
    """Draws tensors into a GGUF file; same seed, same bytes.

    Args:
        loud: Deviation of the weights. A small model with the usual one says the same whatever
            it is shown; 0.3 lets its input through.
    """

    def __init__(self, writer: gguf.GGUFWriter, seed: int, loud: float = DEVIATION) -> None:
        self.writer = writer
        self._rng = np.random.default_rng(seed)
        self._loud = loud

    def f16(self, name: str, *shape: int) -> None:
        """A matrix, the row count first."""
        self.writer.add_tensor(name, self._draw(shape).astype(np.float16))

    def f32(self, name: str, *shape: int) -> None:
        """What llama.cpp wants in full: biases, embeddings of positions."""
        self.writer.add_tensor(name, self._draw(shape))

    def q8(self, name: str, rows: int, columns: int) -> None:
        """Q8_0 blocks drawn directly: one f16 scale and 32 signed bytes per 32 elements."""
        blocks = np.empty((rows, columns // 32, 34), dtype=np.uint8)
        scale = np.array([DEVIATION / 74.0], dtype=np.float16).view(np.uint8)
        blocks[:, :, :2] = scale
        blocks[:, :, 2:] = self._rng.integers(0, 256, (rows, columns // 32, 32), dtype=np.uint8)
        data = blocks.reshape(rows, -1)
        self.writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def ones(self, name: str, width: int) -> None:
        """The weight of a norm."""
        self.writer.add_tensor(name, np.ones(width, dtype=np.float32))

    def zeros(self, name: str, width: int) -> None:
        """The bias of a norm."""
        self.writer.add_tensor(name, np.zeros(width, dtype=np.float32))

    def linear(self, name: str, rows: int, columns: int) -> None:
        """A matrix and its bias."""
        self.f16(name + ".weight", rows, columns)
        self.f32(name + ".bias", rows)

    def norm(self, name: str, width: int) -> None:
        """A norm with its bias."""
        self.ones(name + ".weight", width)
        self.zeros(name + ".bias", width)

    def _draw(self, shape: tuple[int, ...]) -> Any:
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(self._loud)


def new(path: Path, architecture: str, kind: gguf.LlamaFileType) -> gguf.GGUFWriter:
    """A file with its first facts."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_file_type(int(kind))
    writer.add_name("random")
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    """Write everything."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
