"""Why a request went where it went, in words; made when somebody asks."""

from __future__ import annotations

from helexa.cortex.routing.rank import Choice, Predicted


def why(choice: Choice) -> str:
    """The winner against the next best, in one line."""
    cost, _, wait, cached, _, _ = choice.won
    words = f"first token predicted in {_s(cost)}"
    if wait >= 0.001:
        words += f", {_s(wait)} of it waiting"
    if cached:
        words += f", {round(cached)} tokens of the prompt cached there"
    others = [p for p in choice.field if p[1] is not choice.won[1]]
    if not others:
        return words
    second = min(others, key=lambda p: p[0])
    if second[0] <= cost * 1.02 + 0.001:
        return f"{words}; as good as {second[1].node}, by the prompt's hash"
    return f"{words}; next {second[1].node} in {_s(second[0])}"


def candidates(choice: Choice) -> list[dict[str, object]]:
    """Every candidate with its prediction, best first; seconds, tokens."""
    field = sorted(choice.field, key=lambda p: p[0])
    rows = [_row(predicted, won=predicted[1] is choice.won[1]) for predicted in field]
    rows += [{"node": node, "out": reason} for node, reason in choice.out]
    return rows


def _row(predicted: Predicted, *, won: bool) -> dict[str, object]:
    cost, candidate, wait, cached, prefill, displaces = predicted
    row: dict[str, object] = {
        "node": candidate.node,
        "won": won,
        "predicted_s": round(cost, 4),
        "wait_s": round(wait, 4),
        "prefill_s": round(prefill, 4),
        "displaces_s": round(displaces, 4),
        "cached_tokens": round(cached),
    }
    if candidate.load_s:
        row["load_s"] = round(candidate.load_s, 3)
    return row


def _s(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
