"""The interface of a scenario and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from helexa.bench.probe.prompts import mark, prompt
from helexa.bench.probe.timed import Timed
from helexa.bench.row import Result
from helexa.bench.stats.summary import median, percentile
from helexa.bench.targets.base import Surveyed, Target

Message = dict[str, Any]

SHORT_PROMPT = 128
_USAGE_SLACK = 8  # tokens beyond the cap that a server may honestly count (end markers)


class Asked(msgspec.Struct, frozen=True):
    """One run's circumstances.

    Args:
        seed: Of its prompts; equal over targets for the n-th sample of a cell.
        run: Told apart from any other run by it.
        others: Further models of the target.
    """

    target: Target
    model: str
    cap: int
    seed: str
    run: str
    others: tuple[str, ...] = ()

    def body(self, messages: list[Message], **members: object) -> dict[str, object]:
        """A chat request as this target spells it."""
        return {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.cap,
            **self.target.extras,
            **members,
        }

    def prompt(self, tokens: int, part: str = "") -> list[Message]:
        """One user message of about ``tokens`` tokens."""
        return self.question(prompt(tokens, f"{self.seed}:{part}"))

    def question(self, text: str) -> list[Message]:
        """One user message that no engine has met: it begins with the run's own letters."""
        return [{"role": "user", "content": f"{mark(self.run)} {text}"}]


class Scenario(Protocol):
    """One kind of run."""

    name: str

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Whether it can be run there at all."""

    async def run(self, asked: Asked) -> Result:
        """Run it once. The target's faults are results, not exceptions."""


def everywhere(kind: str, model: Surveyed, others: Sequence[str]) -> bool:
    """Fits any target and any model that is not known to be none for chat."""
    del kind, others
    return (
        model.can is None or not model.can or "embeddings" not in model.can or "chat" in model.can
    )


def single(timed: Timed, *, prompt_asked: int, cap: int) -> Result:
    """The result of one stream."""
    gaps = sorted(timed.gaps_ms)
    error = timed.error or _lie(timed, cap)
    return Result(
        ok=timed.ok and not error,
        error=error or ("refused" if timed.refused else ""),
        prompt_asked=prompt_asked,
        prompt_tokens=timed.prompt_tokens,
        output_cap=cap,
        output_tokens=timed.tokens if timed.status == 200 else None,
        cached_tokens=timed.cached,
        first_token_ms=timed.first_ms,
        decode_rate=timed.rate,
        total_ms=timed.total_ms if timed.ok else None,
        inter_token_p50_ms=percentile(gaps, 0.5) if gaps else None,
        inter_token_p99_ms=percentile(gaps, 0.99) if gaps else None,
        refused=int(timed.refused),
        failed=int(bool(error)),
        throughput=timed.tokens / timed.total_ms * 1000 if timed.ok and timed.total_ms else None,
        queue_ms=timed.queue_ms,
    )


def _lie(timed: Timed, cap: int) -> str:
    """A usage that cannot be true is worth no figure."""
    if not timed.ok or not timed.counted:
        return ""
    if timed.tokens > cap + _USAGE_SLACK:
        return f"usage counts {timed.tokens} output tokens where {cap} were allowed"
    if timed.tokens < 1 and timed.first_ms is not None:
        return "usage counts no output tokens though some came"
    if timed.prompt_tokens == 0:
        return "usage counts no prompt tokens"
    return ""


def together(
    timed: Sequence[Timed],
    *,
    prompt_asked: int,
    cap: int,
    wall_ms: float,
    goodput: Callable[[Sequence[Timed]], float] | None = None,
) -> Result:
    """The result of several streams at once: medians over those that were answered."""
    good = [t for t in timed if t.ok and not _lie(t, cap)]
    errors = [t.error or _lie(t, cap) for t in timed if t.error or _lie(t, cap)]
    firsts = sorted(t.first_ms for t in good if t.first_ms is not None)
    rates = sorted(t.rate for t in good if t.rate is not None)
    gaps = sorted(gap for t in good for gap in t.gaps_ms)
    queues = sorted(t.queue_ms for t in good if t.queue_ms is not None)
    prompts = sorted(t.prompt_tokens for t in good if t.prompt_tokens is not None)
    tokens = sum(t.tokens for t in good)
    return Result(
        ok=not errors and bool(good),
        error=errors[0] if errors else "" if good else "every request was refused",
        prompt_asked=prompt_asked,
        prompt_tokens=prompts[len(prompts) // 2] if prompts else None,
        output_cap=cap,
        output_tokens=tokens,
        cached_tokens=sum(t.cached or 0 for t in good),
        first_token_ms=median(firsts) if firsts else None,
        first_token_p95_ms=percentile(firsts, 0.95) if firsts else None,
        decode_rate=median(rates) if rates else None,
        total_ms=wall_ms,
        inter_token_p50_ms=percentile(gaps, 0.5) if gaps else None,
        inter_token_p99_ms=percentile(gaps, 0.99) if gaps else None,
        concurrency=len(timed),
        requests=len(timed),
        refused=sum(t.refused for t in timed),
        failed=len(errors),
        throughput=tokens / wall_ms * 1000 if wall_ms and tokens else None,
        queue_ms=median(queues) if queues else None,
        goodput=None if goodput is None else goodput(timed),
    )
