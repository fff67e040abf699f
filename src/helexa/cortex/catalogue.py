"""What the fleet can serve: the operator's catalogue laid over what the nodes say.

Pure functions of a frozen catalogue and a frozen fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from helexa.core.fleet import Discovery, Limit, ModelEntry
from helexa.core.outlook import Outlook
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import BUILT_IN, Profile, Profiles
from helexa.wire.models_list import ListedModel, Location

PRESENT = frozenset(("loading", "loaded", "reloading", "recovering"))
"""States of a model that a request may wait for on its node."""

SPARK = Profile(id=BUILT_IN, harness="llamacpp", min_devices=0)


_STANDING = ("model_not_found", "forbidden", "invalid_request_body", "unsupported_operation")
"""What a node may say of a model's name or files that only a person can change."""


def resolve(profiles: Profiles, name: str) -> str:
    """The concrete id behind an alias; any other name is its own."""
    return profiles.aliases.get(name, name)


def profile_of(profiles: Profiles, model: str) -> Profile | None:
    """What is needed to load a concrete id; the built-in model needs no catalogue."""
    found = profiles.profile(model)
    return SPARK if found is None and model == BUILT_IN else found


def feasible(profile: Profile, node: NodeSnapshot) -> bool:
    """Whether a node could run the model: placement, devices and engine; not whether it has room.

    A host that lists no devices counts as one of unknown memory. What the node has said of the
    model counts (``hopeless``); what it has not said does not.
    """
    if node.discovery is None or (profile.pinned_on and node.name not in profile.pinned_on):
        return False
    if profile.harness is not None and profile.harness not in node.discovery.harnesses:
        return False
    return not hopeless(node.outlooks.get(profile.id)) and _large_enough(profile, node.discovery)


def _large_enough(profile: Profile, node: Discovery) -> bool:
    least = profile.min_device_vram_mb or 0
    enough = sum(device.vram_total_mb >= least for device in node.devices)
    small = profile.min_devices <= 1 and not least
    return enough >= profile.min_devices or (not node.devices and small)


def obstacle(profile: Profile, fleet: FleetSnapshot) -> str | None:
    """What the catalogue demands and no node of the fleet has, in words; None without such."""
    pinned = profile.pinned_on
    if pinned and not any(node.name in pinned for node in fleet.nodes):
        return f"it is pinned on {', '.join(pinned)}, and this fleet has no such node"
    found = [n.discovery for n in fleet.reachable if not pinned or n.name in pinned]
    known = [discovery for discovery in found if discovery is not None]
    if not known:
        return None
    harness = profile.harness
    if harness is not None and not any(harness in node.harnesses for node in known):
        return f"no node that it may run on has the engine {harness!r}"
    if not any(_large_enough(profile, node) for node in known):
        return f"it wants {_devices(profile)}; no node that it may run on has that"
    return None


def barred(profile: Profile, node: NodeSnapshot) -> str | None:
    """Why the catalogue keeps a model from a node, in words; None where it does not."""
    if profile.pinned_on and node.name not in profile.pinned_on:
        return f"The catalogue pins it on {', '.join(profile.pinned_on)}."
    if node.discovery is not None and not _large_enough(profile, node.discovery):
        return f"The catalogue wants {_devices(profile)} for it."
    return None


def _devices(profile: Profile) -> str:
    each = f" of {profile.min_device_vram_mb} MiB" if profile.min_device_vram_mb else ""
    return f"{profile.min_devices} {'device' if profile.min_devices == 1 else 'devices'}{each}"


def hopeless(outlook: Outlook | None) -> bool:
    """Whether a node has said that a model would never run there as things are: no engine for
    it, no such files or none that can be used, or not enough memory even if all of it were free."""
    if outlook is None or outlook.ok or outlook.possible:
        return False
    if outlook.reason == "insufficient_vram":
        return True
    standing = outlook.reason in _STANDING
    return standing or (bool(outlook.candidates) and outlook.engine is None)


def feasible_nodes(profile: Profile, fleet: FleetSnapshot) -> tuple[NodeSnapshot, ...]:
    """The healthy nodes on which the model could be loaded."""
    return tuple(node for node in fleet.reachable if feasible(profile, node))


def listing(profiles: Profiles, fleet: FleetSnapshot, created: int) -> Iterator[ListedModel]:
    """Every model that can be served, warm or cold, and every alias of one. Each is work for every
    node, so whoever has others to serve takes them one by one.

    Args:
        created: Epoch seconds that entries carry.
    """
    stated = {profile.id: profile for profile in profiles.models}
    present = (model for node in fleet.reachable for model in _present(node))
    listed = {}
    for model in dict.fromkeys((*stated, *present)):
        entry = _listed(stated.get(model), model, fleet, created)
        if entry.feasible_on or entry.locations:
            listed[model] = entry
            yield entry
    for alias, target in profiles.aliases.items():
        if target in listed:
            yield msgspec.structs.replace(listed[target], id=alias)


def listed_as(
    name: str, profiles: Profiles, fleet: FleetSnapshot, created: int
) -> ListedModel | None:
    """The entry of ``listing`` with that id, model or alias; None when there is none."""
    model = resolve(profiles, name)
    known = profiles.profile(model)
    if known is None and not any(model in _present(node) for node in fleet.reachable):
        return None
    entry = _listed(known, model, fleet, created)
    if not (entry.feasible_on or entry.locations):
        return None
    return entry if name == model else msgspec.structs.replace(entry, id=name)


def _present(node: NodeSnapshot) -> Iterable[str]:
    """Ids that are loaded, loading or waiting for their turn at boot."""
    activation = node.activation
    current = () if activation.in_progress is None else (activation.in_progress,)
    here = (m.entry.id for m in node.models.values() if m.entry.status in PRESENT)
    return (*here, *current, *activation.pending)


def _listed(profile: Profile | None, model: str, fleet: FleetSnapshot, created: int) -> ListedModel:
    states = [(node, node.models.get(model)) for node in fleet.reachable]
    entries = [state.entry for _, state in states if state and state.entry.status in PRESENT]
    possible = () if profile is None else feasible_nodes(profile, fleet)
    known: Sequence[ModelEntry | Outlook] = entries or _foretold(model, possible)
    capabilities = [c for said in known for c in said.capabilities]
    if profile is not None and not capabilities:
        capabilities += profile.capabilities
    return ListedModel(
        id=model,
        created=created,
        loaded=any(entry.status == "loaded" for entry in entries),
        feasible_on=tuple(node.name for node in possible),
        locations=_locations(profile, model, fleet.reachable),
        capabilities=tuple(dict.fromkeys(capabilities)),
        limit=tightest([said.limit for said in known if said.limit is not None]),
        cost=None if profile is None or profile.cost is None else _cost(profile),
        tool_call=any(e.tool_call for e in entries) or (not entries and "tools" in capabilities),
        reasoning=any(e.reasoning for e in entries)
        or (not entries and "reasoning" in capabilities),
    )


def _foretold(model: str, nodes: Iterable[NodeSnapshot]) -> list[Outlook]:
    """What those nodes have said of a model that is loaded nowhere."""
    found = (node.outlooks.get(model) for node in nodes)
    return [outlook for outlook in found if outlook is not None and outlook.capabilities]


def tightest(limits: Sequence[Limit]) -> Limit | None:
    """The limit that every replica can keep, each member by itself."""
    if not limits:
        return None
    return Limit(
        context=min(limit.context for limit in limits),
        input=min(limit.input for limit in limits),
        output=min(limit.output for limit in limits),
    )


def _locations(
    profile: Profile | None, model: str, nodes: Iterable[NodeSnapshot]
) -> tuple[Location, ...]:
    places = []
    for node in nodes:
        state = node.models.get(model)
        if state is not None and state.entry.status in PRESENT:
            places.append(Location(node.name, state.entry.status, _vram(profile, state.entry)))
        elif model in node.activation.pending or model == node.activation.in_progress:
            places.append(Location(node.name, "pending", _vram(profile, None)))
    return tuple(places)


def _vram(profile: Profile | None, entry: ModelEntry | None) -> int | None:
    measured = entry.vram_used_mb if entry is not None else 0
    return measured or (None if profile is None else profile.vram_mb)


def _cost(profile: Profile) -> dict[str, float]:
    prices: dict[str, float] = msgspec.to_builtins(profile.cost)
    return prices
