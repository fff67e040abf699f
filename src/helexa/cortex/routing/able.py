"""Which places can do what a request needs: see, embed, rank, write.

::

    route, images ─▶ need ─▶ places that lack it are left out ─▶ none left: 400, naming a model
                                                                  that can

A place says what it can when it has the model or has looked at its files; of a model that is asleep
the catalogue may tell.
Where nobody tells, nothing is left out, and the node's own check decides. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helexa.core.errors import HelexaError, UnsupportedOperation, VisionUnsupported
from helexa.core.principal import Principal
from helexa.cortex.catalogue import listing
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import Profiles

NEEDS = ("text", "vision", "embeddings", "rerank")
_VECTORS = frozenset(("embeddings", "rerank"))
_WORDS = {
    "text": "makes no text",
    "vision": "cannot see images",
    "embeddings": "makes no embeddings",
    "rerank": "cannot rerank",
}
_MOST_NAMED = 3


def can(capabilities: Sequence[str], need: str) -> bool:
    """Whether a list of capabilities holds ``need``; an empty one says nothing, and a model writes
    unless it says that it does something else."""
    if not capabilities or need in capabilities:
        return True
    return need == "text" and not _VECTORS.intersection(capabilities)


def lacking(told: Sequence[Sequence[str]]) -> frozenset[str]:
    """Needs that at least one of some places does not meet.

    Args:
        told: The capabilities that each of them tells.
    """
    distinct = {tuple(each) for each in told}  # a thousand nodes tell the same
    return frozenset(need for need in NEEDS if not all(can(each, need) for each in distinct))


def told_by(node: NodeSnapshot, model: str) -> Sequence[str]:
    """What a node says that a model can there, loaded or not; nothing if it does not say."""
    state, outlook = node.models.get(model), node.outlooks.get(model)
    if state is not None and state.entry.capabilities:
        return state.entry.capabilities
    return () if outlook is None else outlook.capabilities


def told_asleep(stated: Sequence[str], nodes: Iterable[NodeSnapshot], model: str) -> Sequence[str]:
    """What a sleeping model can: what its files say on any of the nodes, else the catalogue.

    Args:
        stated: The catalogue's capabilities.
        nodes: Where it could be loaded.
    """
    found = [capability for node in nodes for capability in told_by(node, model)]
    return tuple(dict.fromkeys(found)) or stated


def cannot(
    model: str,
    need: str,
    others: Sequence[str],
    path: str | None = None,
) -> HelexaError:
    """The refusal.

    Args:
        others: Models that can.
        path: Of the image, for ``vision``.
    """
    instead = "No model here is known to; GET /v1/models lists what each can."
    if others:
        instead = f"Use {' or '.join(repr(name) for name in others)}, which can."
    where = f" (`{path}`)" if path else ""
    words = f"The model {model!r} {_WORDS[need]}{where}. {instead}"
    if need == "vision":
        return VisionUnsupported(words, param=path or "messages")
    return UnsupportedOperation(words, param="model")


def who_can(need: str, profiles: Profiles, fleet: FleetSnapshot, principal: Principal) -> list[str]:
    """Models that this key may use for ``need``, the loaded ones first."""
    allowed = {profiles.aliases.get(name, name) for name in principal.models}
    found = [
        entry
        for entry in listing(profiles, fleet, 0)
        if need in entry.capabilities
        and entry.id not in profiles.aliases
        and (not allowed or entry.id in allowed)
    ]
    found.sort(key=lambda entry: not entry.loaded)
    return [entry.id for entry in found[:_MOST_NAMED]]
