"""Model ids as people write them.

::

    "hf:org/name"                        ─▶ ModelRef("hf", "org/name")
    "org/name", "/a/b.gguf", "qwen3:0.6b" ─▶ ModelRef(None, …): any source

The scheme only chooses the source and never becomes part of the id a model is served under.
"""

from __future__ import annotations

import re

import msgspec

from helexa.core.errors import InvalidRequestBody

_SCHEME = re.compile(r"^(?P<scheme>[a-z][a-z0-9_-]*):(?P<name>.+)$")


class ModelRef(msgspec.Struct, frozen=True):
    """A parsed model id: ``name`` is what it is served under; no scheme means any source."""

    scheme: str | None
    name: str


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
