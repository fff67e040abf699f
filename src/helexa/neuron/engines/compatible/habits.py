"""What sets one OpenAI-compatible engine apart from another, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from helexa.neuron.engines.base import Served

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
        token_ids: Asked with ``return_token_ids`` it says with every chunk which tokens are in
            it, and with the first one those of the prompt: as exact, and cheaper for engines to
            tell than ``continuous``.
        cap: The member that caps the answer.
        kwargs: It hands ``chat_template_kwargs`` to the template.
        barred: Members of its own that would step around the node; they are left out.
        refused: Members that it takes and we do not, or ignores, with what to do instead; values
            that ask for nothing (``n = 1``, ``tool_choice = "auto"``) are left out instead.
        members: Added to every request.
        model: What it calls the model; None is the served id.
        stops: It ends an answer before the client's stop strings; otherwise the node does.
        done: Its streams end with ``[DONE]``; otherwise with the usage.
        paths: Where it serves ``chat``, ``completions``, ``embeddings``, ``rerank``.
        tokenize: Where it counts; None where it does not.
    """

    continuous: bool = False
    token_ids: bool = False
    cap: str = "max_tokens"
    kwargs: bool = True
    barred: frozenset[str] = frozenset()
    refused: Mapping[str, str] = {}
    members: Mapping[str, Any] = {}
    model: Callable[[Served], str] | None = None
    stops: bool = True
    done: bool = True
    paths: Mapping[str, str] = PATHS
    tokenize: str | None = None
