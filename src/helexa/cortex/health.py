"""Whether the gateway is well, for people and monitors, and ready, for whoever spreads requests.

Different questions: ``/health`` says whatever is wrong and is always 200, ``/ready`` only whether
another gateway should be asked instead. Pure functions of what is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.ledger.condition import Condition


def health(fleet: FleetSnapshot, ledger: Condition) -> dict[str, object]:
    """The body of ``GET /health``.

    ``degraded``: a node does not answer, or there is none, or what is settled cannot be written.
    ``impaired``: nothing of that, but a model that should serve cannot. Nodes that take no new
    work are counted where there are any. Everybody may ask, so why the ledger fails is not said.
    """
    healthy = len(fleet.reachable)
    unservable = [problem for node in fleet.reachable for problem in _unservable(node)]
    status = "impaired" if unservable else "ok"
    if healthy < len(fleet.nodes) or not fleet.nodes or not ledger.ok:
        status = "degraded"
    nodes = {"healthy": healthy, "total": len(fleet.nodes)}
    draining = sum(node.draining for node in fleet.reachable)
    return {
        "status": status,
        "nodes": nodes | ({"draining": draining} if draining else {}),
        "ledger": _told(ledger),
        "unservable": unservable,
    }


def not_ready(fleet: FleetSnapshot, ledger: Condition, *, capped: bool) -> list[str]:
    """Why requests should rather go to another gateway: here they would be refused.

    Args:
        capped: There are keys with caps. Others are served as long as what they cost can wait.
    """
    reasons = []
    if not fleet.nodes:
        reasons.append("no node is configured")
    elif not fleet.reachable:
        answered = fleet.settled
        reasons.append("no node answers" if answered else "no node has answered yet")
    if ledger.full:
        reasons.append("the ledger cannot be written, and no more requests may wait for it")
    elif capped and not ledger.granting:
        reasons.append("the ledger cannot be written, and keys with caps are granted nothing")
    return reasons


def _told(ledger: Condition) -> dict[str, object]:
    if ledger.ok:
        return {"ok": True}
    return {"ok": False, "for_s": round(ledger.for_s, 1), "unwritten": ledger.unwritten}


def _unservable(node: NodeSnapshot) -> Iterable[dict[str, object]]:
    for state in node.models.values():
        entry, servable = state.entry, state.entry.servable
        if entry.status in ("failed", "recovering"):
            yield _problem(node.name, entry.id, servable.reason or entry.status, servable.detail)
        elif entry.status == "loaded" and not servable.ok:
            yield _problem(node.name, entry.id, servable.reason or "unservable", servable.detail)
    for failed in node.activation.failed:
        if failed.model_id not in node.models:
            yield _problem(node.name, failed.model_id, "activation_failed", failed.error)


def _problem(node: str, model: str, reason: str, detail: str | None) -> dict[str, object]:
    return {"node": node, "model": model, "reason": reason, "detail": detail}
