"""A model's small files as they lie beside its weights: read whole, bounded, never believed.

The same readers serve a folder on disk and a repository on a hub of which only these files were
fetched, so what is said of a model does not depend on where it lives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from helexa.neuron.models.gguf import BadModelFile

SMALL_FILES = (
    "config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "adapter_config.json",
    "model_index.json",
    "model.safetensors.index.json",
    "quantize_config.json",
    "hf_quant_config.json",
)
"""What is read, besides the headers of weight files."""
MOST_BYTES = 32 << 20
"""Of one file; the largest real one (an index of a model of 700 billion weights) has nine."""
MOST_TEMPLATE = 1 << 20
"""Of a chat template; the longest real ones have 20 kB."""


class Documents(msgspec.Struct, frozen=True):
    """The small files of one model.

    Args:
        where: The folder or repository, for messages.
        sizes: Bytes of every file, by its path there.
        texts: Contents of those of ``SMALL_FILES`` that exist.
    """

    where: str
    sizes: Mapping[str, int]
    texts: Mapping[str, bytes]

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.sizes

    def members(self, name: str) -> dict[str, Any]:
        """A JSON object; empty when there is no such file.

        Raises:
            BadModelFile: It is no JSON object.
        """
        value = self.value(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.bad(name, "it is not a JSON object")
        return value

    def value(self, name: str) -> Any:
        """What a JSON file holds; None when there is no such file.

        Raises:
            BadModelFile: It is not JSON, or nested beyond reason.
        """
        text = self.texts.get(name)
        if text is None:
            return None
        try:
            return json.loads(text)
        except RecursionError:
            raise self.bad(name, "it is nested too deeply") from None
        except ValueError as error:
            raise self.bad(name, f"it is not JSON ({error})") from error

    def template(self, name: str) -> str | None:
        """A template file's text.

        Raises:
            BadModelFile: It is no text, or longer than any template.
        """
        text = self.texts.get(name)
        if text is None:
            return None
        try:
            return self.bounded(name, text.decode("utf-8"))
        except UnicodeDecodeError:
            raise self.bad(name, "it is not UTF-8 text") from None

    def bounded(self, name: str, template: str) -> str:
        """A template as it is.

        Raises:
            BadModelFile: It is longer than any template.
        """
        if len(template) > MOST_TEMPLATE:
            raise self.bad(name, f"its chat template has {len(template)} characters")
        return template

    def bad(self, name: str, why: str) -> BadModelFile:
        """The error for one file: which, what is wrong, what to do."""
        return BadModelFile(
            f"model file {self.where}/{name} cannot be used: {why}. "
            "Fetch it again, or name another model."
        )


def read_documents(folder: Path) -> Documents:
    """The small files in ``folder``.

    Raises:
        BadModelFile: One of them cannot be read, or is larger than any such file.
    """
    files = {p.name: p for p in folder.iterdir() if p.is_file()}
    nested = [name for name in SMALL_FILES if "/" in name]
    files |= {name: folder / name for name in nested if (folder / name).is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return gather(str(folder), sizes, lambda name: files[name].read_bytes())


def gather(where: str, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> Documents:
    """The small files among ``sizes``, through ``read``.

    Raises:
        BadModelFile: One of them cannot be read, or is larger than any such file.
    """
    found = Documents(where, sizes, {})
    texts = {}
    for name in gathered(sizes):
        if oversized(sizes[name]):
            raise found.bad(name, f"it has {sizes[name]} bytes, more than any file of its kind")
        try:
            texts[name] = read(name)
        except OSError as error:
            raise found.bad(name, f"it cannot be read ({error.strerror})") from error
    return Documents(where, sizes, texts)


def gathered(sizes: Mapping[str, int]) -> list[str]:
    """Which of the files are read."""
    return [name for name in SMALL_FILES if name in sizes]


def oversized(size: int) -> bool:
    """Whether a file is larger than any of its kind."""
    return size > MOST_BYTES
