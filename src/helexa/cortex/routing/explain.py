"""Why a request went where it went, in words; made when somebody asks."""

from __future__ import annotations

from helexa.cortex.routing.choice import Choice, Predicted


def why(choice: Choice) -> str:
    """The winner against the next best, in one line."""
    won = choice.won
    cost, wait, cached = won.cost, won.wait, won.cached
    words = f"first token predicted in {_s(cost)}"
    if wait >= 0.001:
        words += f", {_s(wait)} of it waiting"
    if cached:
        words += f", {round(cached)} tokens of the prompt cached there"
    others = [p for p in choice.field if p.candidate is not won.candidate]
    if not others:
        return words
    second = min(others, key=lambda p: p.cost)
    if second.cost <= cost * 1.02 + 0.001:
        return f"{words}; as good as {second.candidate.node}, by the prompt's hash"
    return f"{words}; next {second.candidate.node} in {_s(second.cost)}"


def candidates(choice: Choice) -> list[dict[str, object]]:
    """Every candidate with its prediction, best first; seconds, tokens."""
    field = sorted(choice.field, key=lambda p: p.cost)
    rows = [_row(predicted, won=predicted.candidate is choice.winner) for predicted in field]
    rows += [{"node": node, "out": reason} for node, reason in choice.out]
    return rows


def _row(predicted: Predicted, *, won: bool) -> dict[str, object]:
    candidate = predicted.candidate
    row: dict[str, object] = {
        "node": candidate.node,
        "won": won,
        "predicted_s": round(predicted.cost, 4),
        "wait_s": round(predicted.wait, 4),
        "prefill_s": round(predicted.prefill, 4),
        "displaces_s": round(predicted.displaces, 4),
        "cached_tokens": round(predicted.cached),
    }
    if candidate.work.load_s:
        row["load_s"] = round(candidate.work.load_s, 3)
    return row


def _s(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
