"""Asks what has to be asked, and puts the outlook together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from helexa.core.errors import HelexaError, InsufficientVram, ServiceUnavailable
from helexa.core.fleet import Limit, LoadRequest
from helexa.core.outlook import MemoryUse, Nearest, Outlook, Thinking, ToFetch
from helexa.neuron.choice import smaller_quants
from helexa.neuron.engines.base import Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.outlook import nearest
from helexa.neuron.outlook.memory import short_of, uses_of
from helexa.neuron.plan.empty import emptied
from helexa.neuron.plan.memory import mib
from helexa.neuron.plan.wanted import HOST, room_of
from helexa.neuron.registry.entry import shortage_of
from helexa.neuron.registry.scout import Found, Scout
from helexa.neuron.sources.listing import Listing

ASSUMED_RATE = 25e6
"""Bytes per second of a download that nobody has measured: a line of 200 Mbit/s."""

QUANTS = 6
"""So many smaller quants are tried at most; each may be a question to a hub."""
AT_ONCE = 4
"""Models that are looked at at the same time; others wait."""


@dataclass(slots=True)
class Foreteller:
    """Says what would become of models.

    Args:
        limit: What would be advertised for a plan, at a prefill rate (None is unmeasured).
        disk: Where the files of a listing would go, and the bytes free there (blocking); None
            when that is not known.
        loaded: Ids of what is loaded now.
        headroom_mb: Left free on every place.
    """

    scout: Scout
    limit: Callable[[ModelFacts, Plan, float | None], Limit]
    disk: Callable[[Listing], tuple[Path, int] | None]
    loaded: Callable[[], list[str]]
    headroom_mb: int
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def outlook(self, spec: LoadRequest) -> Outlook:
        """What would become of ``spec``. Whatever stands against it is part of the answer."""
        try:
            return await self.known(spec)
        except HelexaError as error:
            return Outlook(spec.model_id, False, reason=error.code or "error", detail=error.message)

    async def known(self, spec: LoadRequest) -> Outlook:
        """The same for a model that there is.

        Raises:
            ModelNotFound: No source has it, or not of that quant.
            HelexaError: Its files cannot be used, or its source cannot be asked.
        """
        async with self._turns:
            return await self._outlook(spec, await self.scout.find(spec))

    async def check(self, spec: LoadRequest) -> None:
        """See that ``spec`` could be loaded if the node had nothing else to do.

        Raises:
            HelexaError: As the load would.
        """
        async with self._turns:
            found = await self.scout.find(spec)
            self.scout.plan(found, spec, emptied(found.host))

    async def _outlook(self, spec: LoadRequest, found: Found) -> Outlook:
        told = await self._told(found)
        try:
            plan = self.scout.plan(found, spec, found.host)
        except InsufficientVram as error:
            return await self._short(told, found, spec, error)
        except HelexaError as error:
            reason = error.code
            if type(error) is ServiceUnavailable:  # the engine that comes first knows better
                reason = next((c.reason for c in told.candidates if c.reason), reason)
            advice = found.choice.advice
            detail = error.message.removesuffix(f". {advice}") if advice else error.message
            advised = [Nearest(advice)] if advice else []
            return replace(told, reason=reason, detail=detail, nearest=advised)
        return self._fitting(told, found, plan)

    def _fitting(self, told: Outlook, found: Found, plan: Plan) -> Outlook:
        room_on_disk = told.download is None or told.download.fits
        detail = None if room_on_disk else _no_room(told.download)
        return replace(
            told,
            ok=room_on_disk,
            possible=True,
            reason=None if room_on_disk else "disk_full",
            detail=detail,
            memory=uses_of(found.facts, plan, found.host, self.headroom_mb),
            context=plan.context,
            slots=plan.slots,
            kv_cells=plan.kv_cells,
            kv_type=plan.kv_type,
            limit=self._limit(found, plan),
        )

    async def _short(
        self, told: Outlook, found: Found, spec: LoadRequest, error: InsufficientVram
    ) -> Outlook:
        """It does not fit: where, by how much, and what would."""
        shortage = shortage_of(error)
        device = shortage.device if shortage is not None else HOST
        needed = shortage.needed_mb if shortage is not None else 0
        memory = short_of(found.facts, found.host, self.headroom_mb, device, needed)
        later = self._planned(found, spec, empty=True)
        steps = nearest.of_settings(error, found.choice.engine or "")
        steps += [] if later is None else nearest.of_loaded(self.loaded())
        smaller = await self._smaller(found, spec)
        steps += smaller or nearest.of_other_files(found.facts, _usable(memory))
        return replace(
            told,
            possible=later is not None,
            reason=error.code,
            detail=error.message,
            memory=memory,
            shortage=shortage,
            limit=None if later is None else self._limit(found, later),
            nearest=steps,
        )

    def _planned(self, found: Found, spec: LoadRequest, *, empty: bool) -> Plan | None:
        host = emptied(found.host) if empty else found.host
        try:
            return self.scout.plan(found, spec, host)
        except HelexaError:
            return None

    async def _smaller(self, found: Found, spec: LoadRequest) -> list[Nearest]:
        """The largest smaller quant of the repository that fits now."""
        listing = found.listing
        for quant in smaller_quants(listing.quants, listing.quant or found.facts.quant)[:QUANTS]:
            try:
                other = await self.scout.sources.describe(
                    spec.model_id, source=spec.source, quant=quant
                )
            except HelexaError:
                continue
            size = sum(f.size for f in other.files if "mmproj" not in f.name)
            facts = nearest.in_quant(found.facts, quant, size)
            if self._planned(replace(found, facts=facts), spec, empty=False) is not None:
                return [nearest.of_quant(spec.model_id, quant, mib(size))]
        return []

    def _limit(self, found: Found, plan: Plan) -> Limit:
        lesson = self.scout.lesson(found.listing)
        return self.limit(found.facts, plan, lesson.prefill_tok_s)

    async def _told(self, found: Found) -> Outlook:
        """What is known whether or not it fits."""
        facts, listing, choice = found.facts, found.listing, found.choice
        thinks = "reasoning" in facts.capabilities
        return Outlook(
            model_id=listing.name,
            ok=False,
            source=listing.scheme,
            format=facts.format,
            architecture=facts.architecture,
            quant=listing.quant or facts.quant,
            quants=list(listing.quants),
            parameters=facts.parameters,
            weights_mb=mib(facts.weight_bytes),
            context_native=facts.context_native,
            engine=choice.engine,
            candidates=list(choice.candidates),
            capabilities=list(facts.capabilities),
            unsupported=list(facts.unsupported),
            tool_call="tools" in facts.capabilities,
            reasoning=thinks,
            thinking=_thinking(facts) if thinks else None,
            pooling=facts.pooling,
            sampling=facts.sampling,
            download=await self._download(listing, found.rate),
            notes=[note for note in (found.note, listing.note) if note],
        )

    async def _download(self, listing: Listing, measured: float | None) -> ToFetch:
        rate = measured or ASSUMED_RATE
        place = await asyncio.to_thread(self.disk, listing) if listing.bytes_missing else None
        return ToFetch(
            listing.bytes_total,
            listing.bytes_missing,
            rate=rate if listing.bytes_missing else 0.0,
            measured=measured is not None,
            seconds=round(listing.bytes_missing / rate, 1),
            folder="" if place is None else str(place[0]),
            disk_free=None if place is None else place[1],
        )


def _thinking(facts: ModelFacts) -> Thinking:
    forced = facts.thinks_first and facts.thinking_variable is None
    return Thinking(facts.thinking_variable, forced, list(facts.effort_levels))


def _usable(memory: list[MemoryUse]) -> int:
    """What could be had of the place that is short if it were empty."""
    return sum(room_of(use.total_mb, use.total_mb, use.headroom_mb) for use in memory)


def _no_room(download: ToFetch | None) -> str:
    if download is None or download.disk_free is None:
        return ""
    return (
        f"{download.folder} has {mib(download.disk_free)} MiB free, {mib(download.bytes_missing)} "
        "MiB have to be fetched. Free some, or set another cache_dir for its source."
    )
