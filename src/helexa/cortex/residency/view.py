"""Residency as administrators see it."""

from __future__ import annotations

import msgspec

from helexa.cortex.catalogue import profile_of
from helexa.cortex.profiles import Profiles
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.waiting import Line


def lines(residency: Residency) -> list[dict[str, object]]:
    """Who waits for what, for administrators."""
    now = residency.now()
    return [
        {
            "model": line.model,
            "waiters": len(line.waiters),
            "cold": line.cold,
            "waited_s": round(now - first.since, 1),
            **msgspec.to_builtins(first.standing(now)),
            **_behind(line, now),
        }
        for line in residency.room.lines.values()
        if (first := next(iter(line.waiters), None)) is not None
    ]


def _behind(line: Line, now: float) -> dict[str, object]:
    held = line.held_up
    if held is None:
        return {}
    return {"behind": {"model": held.model, "node": held.node, "for_s": round(now - held.since, 1)}}


def under_way(residency: Residency, node: str) -> dict[str, object] | None:
    """What we do on a node at the moment."""
    work = residency.scheduler.work(node)
    if work is None:
        return None
    known = {
        "model": work.model,
        "leaving": work.leaving,
        "victims": list(work.victims),
        "load_s": work.load_s,
    }
    shown = {name: value for name, value in known.items() if value}
    return {"phase": work.phase, "for_s": round(residency.now() - work.since, 1), **shown}


def facts(residency: Residency, node: str, model: str) -> dict[str, object]:
    """What is remembered of a model on a node; what is not known is left out."""
    now = residency.now()
    since, used = residency.uses.since(node, model), residency.uses.last_used(node, model)
    found = {
        "resident_s": None if since is None else round(now - since, 1),
        "idle_s": None if used is None else round(now - used, 1),
        "load_s": residency.learned.load_s(node, model),
        "priority": priority_of(residency.profiles, model),
    }
    return {name: value for name, value in found.items() if value is not None}


def priority_of(profiles: Profiles, model: str) -> int | None:
    """Its residency priority; None when the catalogue does not know it, and it stays."""
    profile = profile_of(profiles, model)
    return None if profile is None else profile.priority
