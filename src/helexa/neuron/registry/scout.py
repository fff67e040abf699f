"""What a model is and who would run it, before any of it is fetched or started.

::

    describe ─▶ facts ─▶ choose ──its safetensors could never run here, it has GGUF too──┐
    files       header     ▲                                                            │
                           └───────────────── describe again, in GGUF ◀─────────────────┘

Loads and outlooks go the same way, so that what was foretold is what happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import LoadRequest
from helexa.neuron.choice import FORMATS, Choice, choose, refusal, usual_quant
from helexa.neuron.engines.base import Engine, Host, Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan.empty import emptied
from helexa.neuron.registry.experience import Experience, Lesson
from helexa.neuron.registry.known import KnownFacts
from helexa.neuron.registry.quants import check_quant
from helexa.neuron.sources.builtin import BUILT_IN
from helexa.neuron.sources.listing import Listing
from helexa.neuron.sources.sources import Sources


class Found(msgspec.Struct, frozen=True):
    """A model that is known and not yet loaded.

    Args:
        rate: Bytes per second at which its source answered; None was not measured.
        note: What was decided on the way, in words.
    """

    listing: Listing
    facts: ModelFacts
    choice: Choice
    host: Host
    rate: float | None = None
    note: str = ""


class Wishes(Protocol):
    """The operator's settings for an engine and a model."""

    def __call__(self, engine: str, spec: LoadRequest) -> dict[str, object]: ...


@dataclass(slots=True)
class Scout:
    """Looks at models.

    Args:
        engines: By name.
        host: A fresh snapshot of the host (blocking).
        wishes: What the operator wants of an engine.
        experience: What earlier loads taught.
        listed: Engine → the ids that the operator lists for it.
    """

    sources: Sources
    known: KnownFacts
    engines: Mapping[str, Engine]
    host: Callable[[], Host]
    wishes: Wishes
    experience: Experience
    listed: Mapping[str, Collection[str]] = field(default_factory=dict)

    async def find(self, spec: LoadRequest) -> Found:
        """What ``spec`` names, and the engine for it.

        Raises:
            ModelNotFound: No source has it, or not of that quant.
            BadModelFile: Its files state what cannot be.
            HelexaError: Its source cannot be asked.
        """
        host = await asyncio.to_thread(self.host)
        found = await self._look(spec, spec.quant, host)
        quants = found.listing.quants
        if found.facts.format != "safetensors" or spec.quant is not None or not quants:
            return found
        why = self._never(found, spec)
        if why is None:
            return found
        other = await self._look(spec, usual_quant(quants), host)
        if self._never(other, spec) is not None:
            return found
        said = f"the repository's GGUF is taken, since its safetensors would not run here ({why})"
        return msgspec.structs.replace(other, note=said)

    def _never(self, found: Found, spec: LoadRequest) -> str | None:
        """Why a model could not be run here even if nothing else were; None when it could.

        What is free just now must not decide which weights are served.
        """
        if found.choice.engine is None:
            declined = (c for c in found.choice.candidates if not c.ok)
            return "; ".join(f"{c.engine}: {c.detail}" for c in declined) or "there is no engine"
        try:
            self.plan(found, spec, emptied(found.host))
        except HelexaError as error:
            return error.message
        return None

    async def _look(self, spec: LoadRequest, quant: str | None, host: Host) -> Found:
        form = FORMATS.get(spec.harness or "")
        listing = await self.sources.describe(
            spec.model_id, source=spec.source, quant=quant, form=form
        )
        listing = msgspec.structs.replace(listing, name=spec.model_id)
        read = await self.known.of(listing)
        if listing.scheme != BUILT_IN:  # there is one of each, and it is always loadable
            check_quant(quant, listing, read.facts)
        choice = choose(
            self.engines,
            spec.harness,
            read.facts,
            host,
            listed=self.listed,
            quants=listing.quants,
        )
        return Found(listing, read.facts, choice, host, read.rate)

    def engine(self, found: Found, spec: LoadRequest) -> Engine:
        """The chosen engine.

        Raises:
            InvalidRequestBody: There is no engine of the name asked for.
            UnsupportedOperation: It is no model that any engine serves.
            ServiceUnavailable: None can run it here; says what would help.
        """
        refused: HelexaError | None = refusal(found.choice, self.engines, spec.harness, found.facts)
        if refused is not None or found.choice.engine is None:
            raise refused or AssertionError("a choice without an engine has a refusal")
        return self.engines[found.choice.engine]

    def plan(self, found: Found, spec: LoadRequest, host: Host, **more: object) -> Plan:
        """How the chosen engine would run it on ``host``, with what earlier loads taught.

        Args:
            more: Wishes that go before the operator's.

        Raises:
            InsufficientVram: It does not fit, with the figures.
            HelexaError: As ``engine``.
        """
        engine, lesson = self.engine(found, spec), self.lesson(found.listing)
        learned = {"prefill_tok_s": lesson.prefill_tok_s, "correction": lesson.correction}
        return engine.plan(found.facts, host, self.wishes(engine.name, spec) | learned | more)

    def lesson(self, listing: Listing) -> Lesson:
        """What earlier loads of these files taught."""
        return self.experience.of(lesson_key(listing))


def lesson_key(listing: Listing) -> str:
    """One model file under one id; another file is another lesson."""
    weights = [f.name for f in listing.files if f.name.endswith(".gguf") and "mmproj" not in f.name]
    name = weights[0] if weights else listing.path.name if listing.path else listing.repository
    return f"{listing.name}|{PurePath(name).name}"
