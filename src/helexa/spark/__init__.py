"""The built-in model: a small Qwen3 that ships with the package.

`helexa/spark` repeats, counts, adds, names capitals and calls tools, so that a fresh machine
without internet has a model that answers and every feature has a model to be tested with. This
package holds its files and says where they are; it must not import an engine, numpy or torch. The
scripts that made it are in `scripts/spark/`, the model card is `docs/spark.md`.
"""

from __future__ import annotations

from pathlib import Path

MODEL_ID = "helexa/spark"
CONTEXT_LENGTH = 8192

_FOLDER = Path(__file__).parent / "model"


def gguf_path() -> Path:
    """Return the GGUF file, for llama.cpp."""
    return _FOLDER / "spark.gguf"


def safetensors_dir() -> Path:
    """Return the folder with the safetensors file and its tokenizer, for vLLM and transformers."""
    return _FOLDER / "hf"
