"""Write GGUF files of random weights in the shape of real models.

For benchmarks and tests that need a model's size, speed or kind but not its answers::

    python scripts/tiny_models.py --shape qwen3-0.6b --type q8_0 --out /tmp/random-0.6b.gguf
    python scripts/tiny_models.py --shape vision --shape embedder --shape reranker --out /tmp/tiny

The second writes ``/tmp/tiny/KIND/KIND.gguf`` for each shape. ``vision`` also writes its image
encoder beside the model, as ``mmproj-vision.gguf``. Needs ``gguf`` and ``numpy`` (in the ``dev``
extra, not dependencies of the project). Same seed, same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tiny import decoder, encoder, projector

SHAPES = (*decoder.SHAPES, *encoder.SHAPES)


def write(path: Path, shape: str, quant: str = "f16", seed: int = 0) -> None:
    """Write one model.

    Args:
        path: The file; its folder is made.
        shape: One of ``SHAPES``.
        quant: ``f16`` or ``q8_0``, of decoders; those that see are always ``f16``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if shape in encoder.SHAPES:
        encoder.write(path, encoder.SHAPES[shape], seed)
        return
    found = decoder.SHAPES[shape]
    decoder.write(path, found, "f16" if found.sees else quant, seed)
    if found.sees:
        beside = path.with_name("mmproj-" + path.name)
        projector.write(beside, projector.Shape(projected=found.hidden), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append")
    parser.add_argument("--type", choices=("f16", "q8_0"), default="q8_0", help="of decoders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a .gguf file, or a folder")
    args = parser.parse_args()
    for shape in args.shape or ["qwen3-0.6b"]:
        file = args.out if args.out.suffix == ".gguf" else args.out / shape / f"{shape}.gguf"
        write(file, shape, args.type, args.seed)


if __name__ == "__main__":
    main()
