"""Rerank scores between 0 and 1, as Cohere's and Jina's clients take them, and as vLLM gives them.

llama.cpp answers with what the model's head computes, which is a logit of no fixed range; clients
compare scores with thresholds such as 0.5, and a fleet has one scale whatever the engine. Only for
Qwen3's rerankers it ends with a softmax over yes and no (``build_pooling`` of ``llama-graph.cpp``);
applied to those, a sigmoid would press all scores between 0.5 and 0.73.
"""

from __future__ import annotations

from math import exp
from typing import Any

from helexa.neuron.engines.vectors import Prepared

_PROBABILITIES = frozenset({"qwen3", "qwen3vl"})
"""Architectures whose scores are probabilities already."""


def probable(prepared: Prepared, architecture: str) -> Prepared:
    """``prepared`` with an answer whose scores are probabilities; their order stays."""
    if architecture in _PROBABILITIES:
        return prepared
    further = prepared.amend

    def amend(answer: dict[str, Any]) -> None:
        for result in answer["results"]:
            result["relevance_score"] = sigmoid(result["relevance_score"])
        if further is not None:
            further(answer)

    return Prepared(amend, prepared.sizes)


def sigmoid(logit: float) -> float:
    """The probability of a logit; for any finite number."""
    if logit >= 0:
        return 1 / (1 + exp(-logit))
    odds = exp(logit)
    return odds / (1 + odds)
