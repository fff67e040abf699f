"""Which cells still want runs: a pure decision over surveys and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from helexa.bench.row import CellKey, ModelFacts
from helexa.bench.scenarios.base import Scenario
from helexa.bench.targets.base import Survey


class Due(msgspec.Struct, frozen=True):
    """One run to be made: sample number ``sample`` (from 0) of a cell."""

    key: CellKey
    facts: ModelFacts
    others: tuple[str, ...]
    sample: int


def due(
    surveys: Sequence[Survey],
    scenarios: Sequence[Scenario],
    counts: Mapping[CellKey, int],
    samples: int,
) -> list[Due]:
    """Every missing run, sample by sample.

    All cells get their first sample before any gets its second: a sweep that is cut short has
    seen everything, and slow drift of a host falls on all cells alike. Scenarios that unload
    models come last in each round.
    """
    missing: list[Due] = []
    for survey in surveys:
        for model in survey.models:
            others = tuple(
                m.facts.model for m in survey.models if m.facts.model != model.facts.model
            )
            for scenario in scenarios:
                if not scenario.fits(survey.source.kind, model, others):
                    continue
                source = survey.source
                key = CellKey(source.target, source.build, model.facts.model, scenario.name)
                missing += [
                    Due(key, model.facts, others, sample)
                    for sample in range(counts.get(key, 0), samples)
                ]
    order = {scenario.name: i for i, scenario in enumerate(scenarios)}
    return sorted(missing, key=lambda d: (d.sample, d.key.scenario in ("cold", "swap"),
                                          order[d.key.scenario], d.key))  # fmt: skip
