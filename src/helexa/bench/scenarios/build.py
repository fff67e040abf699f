"""Scenarios from their names and the settings."""

from __future__ import annotations

from collections.abc import Callable

from helexa.bench.scenarios.base import Scenario
from helexa.bench.scenarios.chat import Chat, Concurrency, Poisson, Prefix
from helexa.bench.scenarios.residency import Cold, Swap
from helexa.bench.scenarios.shapes import Capability, Structured, Tools
from helexa.bench.settings import ScenarioSettings
from helexa.core.settings import SettingsError
from helexa.core.settings_keys import nearest

_PLAIN: dict[str, Callable[[], Scenario]] = {
    "tools": Tools,
    "structured": Structured,
    "cold": Cold,
    "swap": Swap,
}
_SIZED: dict[str, Callable[[int], Scenario]] = {
    "chat": Chat,
    "prefix": Prefix,
    "concurrency": Concurrency,
}


def scenarios(settings: ScenarioSettings) -> list[Scenario]:
    """Every scenario that is asked for, once.

    Raises:
        SettingsError: A name that none has; names the nearest.
    """
    found: list[Scenario] = [Chat(n) for n in settings.prompt_sizes]
    found += [Prefix(n) for n in settings.prefix_sizes]
    found += [Concurrency(n) for n in settings.concurrency_levels]
    found += [Poisson(rate) for rate in settings.arrival_rates]
    found += [by_name(name) for name in settings.names]
    found += [Capability(probe.name, probe.prompt) for probe in settings.capability_probes]
    return list({scenario.name: scenario for scenario in found}.values())


def by_name(name: str) -> Scenario:
    """``tools``, ``chat:128``, ``poisson:0.5``, ...

    Raises:
        SettingsError: There is none of that name.
    """
    kind, _, size = name.partition(":")
    if not size and kind in _PLAIN:
        return _PLAIN[kind]()
    if kind in _SIZED and size.isdigit() and int(size) > 0:
        return _SIZED[kind](int(size))
    if kind == "poisson":
        try:
            rate = float(size)
        except ValueError:
            rate = 0.0
        if rate > 0:
            return Poisson(rate)
    known = {k: k for k in _PLAIN} | {k: f"{k}:<n>" for k in _SIZED} | {"poisson": "poisson:<rate>"}
    close = nearest(kind, [*known])
    hint = f"; did you mean {known[close]!r}?" if close else "."
    raise SettingsError(
        f"scenarios.names: there is no scenario {name!r}{hint} Known: {', '.join(known.values())}"
    )
