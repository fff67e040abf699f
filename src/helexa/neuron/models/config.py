"""One ``config.json`` with its values checked where they are read.

Families name the same thing differently and leave out what their code defaults to; both are known
here, so that readers ask once, in the order of preference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helexa.neuron.models.documents import Documents

MOST = 1 << 48
MOST_LAYERS = 4096

_LLAMA: dict[str, object] = {
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
}
DEFAULTS: dict[str, dict[str, object]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate_size": 14_336, "num_key_value_heads": 8,
                "max_position_embeddings": 131_072},
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                    "vocab_size": 262_208, "max_position_embeddings": 131_072,
                    "sliding_window": 4096},
    "gemma2": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
               "max_position_embeddings": 8192, "sliding_window": 4096},
}  # fmt: skip
"""What a family's own code takes for members that its files leave out (multimodal repositories
state only what differs). Source: the ``configuration_*.py`` of transformers."""

_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")


class Config:
    """Members of one JSON object; ``where`` is their path for messages.

    Every reader raises ``BadModelFile`` for a value that cannot be.
    """

    def __init__(
        self, documents: Documents, name: str, members: Mapping[str, Any], path: str = ""
    ) -> None:
        self._documents = documents
        self._name = name
        self.path = path
        self.members = members

    @classmethod
    def of(cls, documents: Documents, name: str = "config.json") -> Config:
        """The whole file; empty when there is none."""
        return cls(documents, name, documents.members(name))

    def section(self, name: str) -> Config:
        """The object at ``name``; empty when there is none."""
        value = self.members.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.bad(name, value, "an object")
        return Config(self._documents, self._name, value, f"{self.path}{name}.")

    def language(self) -> Config:
        """The part about the language model, with its family's defaults beneath."""
        found = self
        for _ in range(2):  # an omni model has its text inside its thinker
            inner = next((n for n in _TEXT_SECTIONS if isinstance(found.members.get(n), dict)), "")
            if not inner:
                break
            found = found.section(inner)
        defaults = DEFAULTS.get(found.text("model_type"), {})
        outer = {} if found is self else self._outer()
        stated = {n: v for n, v in found.members.items() if v is not None or n not in defaults}
        members = {**defaults, **outer, **stated}
        return Config(self._documents, self._name, members, found.path)

    def _outer(self) -> dict[str, Any]:
        """What composite files may state once for the whole model."""
        shared = ("tie_word_embeddings", "dtype", "torch_dtype")
        return {name: self.members[name] for name in shared if name in self.members}

    def whole(self, *names: str, default: int = 0, most: int = MOST) -> int:
        """The first of ``names`` that is stated: a whole number; of a list (one value per layer)
        the largest."""
        for name in names:
            value = self.members.get(name)
            if value is None:
                continue
            if isinstance(value, list) and value:
                return max(self._whole(name, item, most) for item in value)
            return self._whole(name, value, most)
        return default

    def number(self, name: str, default: float) -> float:
        """A number between 0 and a million."""
        value = self.members.get(name, default)
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not 0 <= value <= 1e6:
            raise self.bad(name, value, "a number between 0 and 1000000")
        return float(value)

    def text(self, name: str) -> str:
        """A text; empty when it is not stated."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    def words(self, name: str) -> list[str]:
        """A list of texts, at most one for each of the most layers there may be."""
        value = self.members.get(name)
        if not isinstance(value, list):
            return []
        if len(value) > MOST_LAYERS:
            raise self.bad(name, f"a list of {len(value)}", f"a list of at most {MOST_LAYERS}")
        return [str(item) for item in value]

    def numbers(self, name: str) -> list[int]:
        """A list of whole numbers."""
        value = self.members.get(name)
        if not isinstance(value, list):
            return []
        if len(value) > MOST_LAYERS:
            raise self.bad(name, f"a list of {len(value)}", f"a list of at most {MOST_LAYERS}")
        return [self._whole(name, item, MOST) for item in value]

    def flag(self, name: str, default: bool = False) -> bool:
        """A switch."""
        value = self.members.get(name)
        return default if value is None else bool(value)

    def _whole(self, name: str, value: object, most: int) -> int:
        if isinstance(value, float) and value.is_integer() and 0 <= value <= most:
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.bad(name, value, f"a whole number from 0 to {most}")
        return value

    def bad(self, name: str, value: object, wanted: str) -> Exception:
        """The error for one member."""
        # Printing an integer of a million digits is refused by Python itself.
        huge = isinstance(value, int) and abs(value) > MOST
        shown = "beyond all bounds" if huge else repr(value)[:60]
        return self._documents.bad(self._name, f"{self.path}{name} is {shown}, not {wanted}")
