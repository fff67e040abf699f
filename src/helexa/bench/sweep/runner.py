"""One sweep over all targets.

::

    survey ─▶ due ─▶ each: quiet? ─▶ same build? ─▶ readings, run, readings ─▶ same build? ─▶ store
                        no: wait     no: survey again                     no: thrown away
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from helexa.bench.row import CellKey, Result, Run
from helexa.bench.scenarios.base import Asked, Scenario
from helexa.bench.settings import BenchSettings
from helexa.bench.sweep.due import Due, due
from helexa.bench.targets.base import Survey, Target, TargetDown

QUIET_POLL_S = 1.0
WARM_UP_CAP = 8


class Progress(Protocol):
    """Whoever shows how a sweep goes."""

    def begin(self, runs: int) -> None:
        """So many runs are due."""

    def note(self, text: str) -> None:
        """Something to know: a wait, a target that is down."""

    def done(self, run: Due, result: Result | None) -> None:
        """A run has ended; None when it was put off or thrown away."""

    def end(self) -> None:
        """The sweep is over."""


class Sink(Protocol):
    """Where runs go (the store)."""

    def add(self, run: Run) -> bool:
        """Store it; False when it is there already."""

    def counts(self, builds: Iterable[str]) -> dict[CellKey, int]:
        """Good runs of every cell of these builds."""


@dataclass(slots=True)
class Outcome:
    """How a sweep went.

    Args:
        down: Targets that did not answer, with why.
        missing: Models that a target should have and does not list.
    """

    stored: int = 0
    failed: int = 0
    put_off: int = 0
    down: dict[str, str] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)


class Sweep:
    """Makes the missing runs of every target, one after the other.

    Args:
        now: Epoch seconds.
    """

    def __init__(
        self,
        settings: BenchSettings,
        targets: Sequence[Target],
        scenarios: Sequence[Scenario],
        sink: Sink,
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._targets = {target.name: target for target in targets}
        self._scenarios = {scenario.name: scenario for scenario in scenarios}
        self._sink = sink
        self._progress = progress
        self._now = now
        self._warm: set[tuple[str, str, str]] = set()

    async def run(self) -> Outcome:
        """One pass over everything that is due now."""
        outcome = Outcome()
        surveys = await self._survey(outcome)
        runs = self._due(list(surveys.values()))
        self._progress.begin(len(runs))
        try:
            await self._make(runs, surveys, outcome)
        except asyncio.CancelledError:
            self._progress.note("stopped; what was measured is kept, the next sweep goes on there")
            raise
        finally:
            self._progress.end()
        return outcome

    async def _make(
        self, runs: Sequence[Due], surveys: dict[str, Survey], outcome: Outcome
    ) -> None:
        failed: set[CellKey] = set()
        for one in runs:
            survey = surveys.get(one.key.target)
            if survey is None or survey.source.build != one.key.build or one.key in failed:
                outcome.put_off += 1
                self._progress.done(one, None)
                continue
            try:
                result = await self._one(one, survey)
            except TargetDown as error:
                outcome.down[one.key.target] = str(error)
                self._progress.note(f"{one.key.target} is down: {error}")
                del surveys[one.key.target]
                result = None
            except _BuildChanged as changed:
                self._progress.note(f"{one.key.target} now runs {changed}; its runs are new ones")
                await self._survey_again(one.key.target, surveys, outcome)
                result = None
            self._book(one, result, outcome, failed)
            await asyncio.sleep(self._settings.bench.iteration_pause_secs)

    def _due(self, surveys: Sequence[Survey]) -> list[Due]:
        samples = self._settings.bench.samples_per_version
        counts = self._sink.counts(survey.source.build for survey in surveys)
        return due(surveys, list(self._scenarios.values()), counts, samples)

    def _book(
        self, one: Due, result: Result | None, outcome: Outcome, failed: set[CellKey]
    ) -> None:
        if result is None:
            outcome.put_off += 1
        elif result.ok:
            outcome.stored += 1
        else:
            outcome.failed += 1
            failed.add(one.key)  # tried again by the next sweep, not at once
        self._progress.done(one, result)

    async def _survey(self, outcome: Outcome) -> dict[str, Survey]:
        """Everyone at once: a target that hangs delays nobody."""
        found = await asyncio.gather(
            *(target.survey() for target in self._targets.values()), return_exceptions=True
        )
        surveys = {}
        for name, answer in zip(self._targets, found, strict=True):
            if isinstance(answer, Survey):
                surveys[name] = answer
                self._note_gaps(name, answer, outcome)
            elif isinstance(answer, TargetDown):
                outcome.down[name] = str(answer)
                self._progress.note(f"{name} is down: {answer}")
            else:
                raise answer
        return surveys

    def _note_gaps(self, name: str, survey: Survey, outcome: Outcome) -> None:
        """What is not there is not "nothing due"."""
        if survey.missing:
            outcome.missing[name] = list(survey.missing)
            self._progress.note(f"{name} does not list {', '.join(survey.missing)}")
        elif not survey.models:
            self._progress.note(
                f"{name} has no model now: load one there, or name some in its `models`"
            )

    async def _survey_again(self, name: str, surveys: dict[str, Survey], outcome: Outcome) -> None:
        try:
            surveys[name] = await self._targets[name].survey()
        except TargetDown as error:
            outcome.down[name] = str(error)
            del surveys[name]

    async def _one(self, one: Due, survey: Survey) -> Result | None:
        """Make one run and store it; None when the target stayed busy.

        Raises:
            TargetDown, _BuildChanged: Nothing was stored.
        """
        target = self._targets[one.key.target]
        if not await self._quiet(target):
            return None
        await self._same_build(target, one.key.build)
        key = uuid.uuid4().hex
        asked = self._asked(one, target, key)
        await self._warm_up(one, asked)
        before = await target.device()
        started = self._now()
        scenario = self._scenarios[one.key.scenario]
        result = await scenario.run(asked)
        after = await target.device()
        await self._same_build(target, one.key.build)
        run = Run(
            at=started,
            scenario=one.key.scenario,
            source=survey.source,
            model=one.facts,
            result=result,
            before=before,
            after=after,
            key=key,
        )
        await asyncio.to_thread(self._sink.add, run)
        return result

    def _asked(self, one: Due, target: Target, key: str) -> Asked:
        return Asked(
            target=target,
            model=one.key.model,
            cap=self._settings.scenarios.max_tokens,
            # No target, no build: the n-th sample asks everyone the same.
            seed=f"{self._settings.bench.seed}:{one.key.scenario}:{one.sample}",
            run=key,
            others=one.others,
        )

    async def _warm_up(self, one: Due, asked: Asked) -> None:
        """One short answer that is not stored, per model and build; finds what is not understood.

        An endpoint that refuses what only some servers know is asked without it from then on.
        """
        key = (one.key.target, one.key.build, one.key.model)
        if key in self._warm:
            return
        self._warm.add(key)
        short = msgspec.structs.replace(asked, cap=WARM_UP_CAP, seed=f"warm:{one.key.build}")
        timed = await asked.target.prober.ask(short.body(short.prompt(32)))
        if timed.status in (400, 422) and "ignore_eos" in asked.target.extras:
            del asked.target.extras["ignore_eos"]
            self._progress.note(
                f"{one.key.target} does not know ignore_eos: its answers may end early"
            )

    async def _quiet(self, target: Target) -> bool:
        """Wait until nobody else is served there, for a while."""
        waited = 0.0
        while (why := await target.busy()) is not None:
            if waited >= self._settings.bench.quiet_wait_secs:
                self._progress.note(f"{target.name} stays busy ({why}); put off")
                return False
            if not waited:
                self._progress.note(f"waiting for {target.name}: {why}")
            await asyncio.sleep(QUIET_POLL_S)
            waited += QUIET_POLL_S
        return True

    async def _same_build(self, target: Target, build: str) -> None:
        now = await target.build()
        if now != build:
            raise _BuildChanged(now)


class _BuildChanged(Exception):
    """The target was updated meanwhile; carries the new build."""
