"""What sets one OpenAI-compatible engine apart from another, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

PATHS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "/v1/chat/completions",
        "completions": "/v1/completions",
        "embeddings": "/v1/embeddings",
        "rerank": "/v1/rerank",
    }
)


class Habits(msgspec.Struct, frozen=True):
    """How an engine wants to be asked, and what it tells.

    Args:
        continuous: Asked with ``stream_options.continuous_usage_stats`` it puts the usage so far
            into every chunk, of each choice its own; otherwise usage comes once, and a delta is
            taken for a token until then.
        cap: The member that caps the answer.
        kwargs: It hands ``chat_template_kwargs`` to the template.
        barred: Members of its own that would step around the node; they are left out.
        refused: Members that it takes and we do not, with what to do instead.
        paths: Where it serves ``chat``, ``completions``, ``embeddings``, ``rerank``.
        tokenize: Where it counts; None where it does not.
    """

    continuous: bool = False
    cap: str = "max_tokens"
    kwargs: bool = True
    barred: frozenset[str] = frozenset()
    refused: Mapping[str, str] = {}
    paths: Mapping[str, str] = PATHS
    tokenize: str | None = None
