"""Where a cold model goes, who makes room for it, and when: pure.

::

    it fits somewhere          ──▶ Load         most free memory first
    idle victims would do      ──▶ MakeRoom     least to load again first
    busy ones, and it is time  ──▶ MakeRoom     they take no new requests, and end what runs
    not yet                    ──▶ NotBefore
    nobody may go for it       ──▶ Load, if the node itself has not said so yet; else Hopeless

A victim is never of higher priority, never younger than the minimum residency, and never one
that still owes its first answer. Beyond that::

    loaded ──min residency──▶ may go when idle for as long as loading it again would take
           ──turn───────────▶ may go when in use: it takes no new requests and ends the old

The latter if those who wait have waited, all in all, as long as the swap would cost its own
requests, and at the latest when the oldest has waited for a whole turn. That is the bound on being
overtaken: ``turn`` + the longest answer under way + unload + load, for each model that waits for
the same memory and came earlier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import TypeAlias

import msgspec

from helexa.cortex.residency.world import Demand, Option, Resident, Room, Rules


class Load(msgspec.Struct, frozen=True):
    """It fits, or only the node can tell."""

    node: str


class MakeRoom(msgspec.Struct, frozen=True):
    """These go first, in this order."""

    node: str
    victims: tuple[str, ...]


class NotBefore(msgspec.Struct, frozen=True):
    """Nothing can be done before that time; None: before something changes."""

    at: float | None = None
    node: str | None = None


class Hopeless(msgspec.Struct, frozen=True):
    """No node has room, and nobody there may be evicted for it."""

    need_mb: int
    free_mb: int


Choice: TypeAlias = Load | MakeRoom | NotBefore | Hopeless


class _Clearing(msgspec.Struct, frozen=True):
    """Who would have to go on one node, and from when on they may."""

    node: str
    victims: tuple[Resident, ...]
    at: float

    @property
    def key(self) -> tuple[bool, float, str]:
        """Idle ones first, then what is cheapest to load again."""
        busy = any(victim.running for victim in self.victims)
        return busy, sum(v.load_s * (1 + v.running) for v in self.victims), self.node


def in_order(demands: Iterable[Demand], rules: Rules, now: float) -> list[Demand]:
    """Who is looked at first.

    Whoever has waited for a whole turn comes before the others, the longest first: nobody is
    overtaken from then on. The others by priority, then by how much waiting a second of loading
    would end.
    """

    def key(demand: Demand) -> tuple[bool, float, float, float, str]:
        aged = bool(demand.waiters) and now - demand.since >= rules.turn(demand.load_s)
        worth = demand.waiters * (1.0 + now - demand.since) / max(0.1, demand.load_s)
        if aged:
            return False, demand.since, 0.0, 0.0, demand.model
        return True, -demand.priority, -worth, demand.since, demand.model

    return sorted(demands, key=key)


def choose(
    demand: Demand, rooms: Mapping[str, Room], taken: Collection[str], rules: Rules, now: float
) -> Choice:
    """What to do for one model.

    Args:
        rooms: Every node that takes loads.
        taken: Nodes on which a load or an eviction is under way.
    """
    options = [option for option in demand.options if option.node in rooms]
    free = [o for o in options if o.node not in taken and o.blocked_until <= now]
    fitting = [o for o in free if _fits(o, rooms[o.node])]
    if fitting:
        best = min(fitting, key=lambda o: (-rooms[o.node].free(o.devices), o.node))
        return Load(best.node)
    waiting = [o.blocked_until for o in options if o.node not in taken and o.blocked_until > now]
    clearings = [
        c for o in free if (c := _clearing(demand, o, rooms[o.node], rules, now)) is not None
    ]
    if demand.may_evict and (due := [c for c in clearings if c.at <= now]):
        best_clearing = min(due, key=lambda c: c.key)
        return MakeRoom(best_clearing.node, tuple(v.model for v in best_clearing.victims))
    if demand.may_evict and clearings:
        soonest = min(clearings, key=lambda c: (c.at, c.key))
        at = min([soonest.at, *waiting])
        return NotBefore(None if at == inf else at, soonest.node)
    if waiting or len(free) < len(options) or not options:
        return NotBefore(min(waiting, default=None))
    short = min(options, key=lambda o: (o.need_mb or 0) - rooms[o.node].free(o.devices))
    if demand.may_evict and not all(option.firm for option in options):
        asked = [option for option in options if not option.firm]
        return Load(min(asked, key=lambda o: (-rooms[o.node].free(o.devices), o.node)).node)
    return Hopeless(short.need_mb or 0, rooms[short.node].free(short.devices))


def _fits(option: Option, room: Room, without: tuple[Resident, ...] = ()) -> bool:
    return option.need_mb is None or room.free(option.devices, without) >= option.need_mb


def _clearing(
    demand: Demand, option: Option, room: Room, rules: Rules, now: float
) -> _Clearing | None:
    """The least that would have to go, by the strategy's order; None when nothing would do."""
    allowed = [v for v in room.residents.values() if _may_go(v, demand)]
    ready = {v.model: ready_at(v, demand, option, rules) for v in allowed}
    # Whoever may go at once before whoever may go later: nobody waits for a favourite victim.
    allowed.sort(key=lambda v: (max(ready[v.model], now), *_rank(v, rules)))
    for count in range(1, len(allowed) + 1):
        if _fits(option, room, tuple(allowed[:count])):
            victims = _spared(option, room, allowed[:count])
            return _Clearing(room.node, victims, max(ready[v.model] for v in victims))
    return None


def _may_go(victim: Resident, demand: Demand) -> bool:
    return (
        victim.status == "loaded"
        and victim.priority <= demand.priority
        and victim.model != demand.model
    )


def _rank(victim: Resident, rules: Rules) -> tuple[float, float, str]:
    first = float(victim.priority) if rules.strategy == "priority" else 0.0
    return first, victim.last_used, victim.model


def _spared(option: Option, room: Room, chosen: list[Resident]) -> tuple[Resident, ...]:
    """``chosen`` without those whose room is not needed, the dearest to load again first."""
    kept = list(chosen)
    for victim in sorted(chosen, key=lambda v: -v.load_s * (1 + v.running)):
        rest = tuple(v for v in kept if v is not victim)
        if rest and _fits(option, room, rest):
            kept = list(rest)
    return tuple(kept)


def ready_at(victim: Resident, demand: Demand, option: Option, rules: Rules) -> float:
    """The time from which ``victim`` may be asked to go for ``demand``; infinity: not yet known.

    A busy one then takes no new requests; it goes when what runs there has ended.
    """
    if victim.owed:
        return inf
    turn = rules.turn(victim.load_s, option.load_s)
    earliest = victim.since + rules.min_residency_s
    cost = max(1, victim.running) * (victim.load_s + option.load_s)
    fair = min(demand.since + turn, demand.since + cost / max(1, demand.waiters))
    in_use_until = inf if victim.running else victim.last_used + victim.load_s
    return max(earliest, min(in_use_until, max(fair, victim.since + turn)))
