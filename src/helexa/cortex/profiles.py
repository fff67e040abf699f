"""``models.toml``: the operator's catalogue, and the file that holds it while it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from helexa.core.fleet import CAPABILITIES
from helexa.core.settings import SettingsError, convert, read_file
from helexa.core.settings_keys import nearest
from helexa.core.settings_lines import naming_lines
from helexa.cortex.watched import stamp_of

BUILT_IN = "helexa/spark"
"""The model that ships with every node and is loadable without being in the catalogue."""

_SOURCES = ("hf", "file", "builtin")
"""Sources that every node knows by these names."""

DEFAULT_PRIORITY = 100
PINNED_PRIORITY = 1000

Count = Annotated[int, msgspec.Meta(ge=0)]
Price = Annotated[float, msgspec.Meta(ge=0)]


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens. An absent ``Cost`` is unpriced; a price of 0 is free.

    Args:
        input: Of prompt tokens.
        output: Of completion tokens.
        cache_read: Of prompt tokens that were cached; absent, as ``input``.
        cache_write: Told to clients, and no part of a bill.
    """

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[models]]``: what to load under an id and where it may live.

    Args:
        id: As clients name it: ``org/name``, with the scheme of a source where it needs one.
        harness: Name of the engine that runs it; absent, each node takes the one that suits.
        quant: Which of several files of a repository, such as ``Q4_K_M``.
        source: A path, or a scheme of the nodes' ``[sources]``; absent, their ``default_source``.
        vram_mb: The operator's estimate of its memory (MiB), shown until it was measured.
        min_devices, min_device_vram_mb: At least so many devices of at least so much memory.
        pinned_on: Names of nodes; empty means any.
        residency_priority: Who may displace whom; see ``priority``.
        prewarm: Load it when the gateway starts, where there is room, and keep it however idle;
            absent, pinned models are.
        capabilities: What it can do, for as long as no node tells: ``text``, ``tools``,
            ``reasoning``, ``vision``, ``embeddings``, ``rerank``.
        thinking: ``on`` makes it think unless a request asks it not to.
        stabilise_prefix: Move a first line that rotates (a date, a hash) to the end of the system
            prompt, so that what follows it can be reused.
        engine: Settings of the engine for this model, over those of the node: ``slots``, ``ctx``
            and ``embeddings`` for any, all of ``[engines.llamacpp]`` for llama.cpp.
        limit: Parsed and ignored: limits come from the nodes.
    """

    id: str
    harness: str | None = None
    quant: str | None = None
    source: str | None = None
    vram_mb: Count | None = None
    min_devices: Count = 1
    min_device_vram_mb: Count | None = None
    pinned_on: tuple[str, ...] = ()
    residency_priority: int | None = None
    prewarm: bool | None = None
    cost: Cost | None = None
    capabilities: tuple[str, ...] = ()
    thinking: Literal["off", "on"] = "off"
    stabilise_prefix: bool = False
    engine: dict[str, Any] = {}
    limit: Any = None

    @property
    def warm(self) -> bool:
        """To be loaded at the start, and kept."""
        return bool(self.pinned_on) if self.prewarm is None else self.prewarm

    @property
    def priority(self) -> int:
        """Residency priority: 100, or 1000 when pinned and unset."""
        if self.residency_priority is not None:
            return self.residency_priority
        return PINNED_PRIORITY if self.pinned_on else DEFAULT_PRIORITY


class Profiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``models.toml``.

    Args:
        aliases: Further names, each for the id of a model.
    """

    models: tuple[Profile, ...] = ()
    aliases: dict[str, str] = {}

    def profile(self, model: str) -> Profile | None:
        """The entry of a concrete id."""
        return next((p for p in self.models if p.id == model), None)


def load_profiles(path: Path) -> Profiles:
    """Read and check one catalogue.

    Raises:
        SettingsError: It does not parse or contradicts itself.
    """
    with naming_lines(path):
        profiles = convert(read_file(path), Profiles, str(path))
        check_profiles(profiles, str(path))
        return profiles


def check_profiles(profiles: Profiles, where: str) -> None:
    """Refuse a catalogue that contradicts itself.

    Raises:
        SettingsError: An id twice, an alias that hides a model or leads nowhere, or a capability
            that nobody knows.
    """
    ids: set[str] = set()
    for index, profile in enumerate(profiles.models):
        if profile.id in ids:
            raise SettingsError(f"{where}: models[{index}].id: {profile.id!r} is there twice")
        _check_id(profile.id, f"{where}: models[{index}].id")
        ids.add(profile.id)
        _check_capabilities(profile.capabilities, f"{where}: models[{index}].capabilities")
    for alias, target in profiles.aliases.items():
        _check_id(alias, f"{where}: aliases")
        if alias in ids:
            raise SettingsError(f"{where}: aliases: {alias!r} is also a model; rename one")
        if target in profiles.aliases:
            raise SettingsError(
                f"{where}: aliases: {alias!r} points at the alias {target!r}; an alias resolves "
                f"once, write {_end_of(target, profiles.aliases)}"
            )
        if target not in ids and target != BUILT_IN:
            close = nearest(target, ids)
            hint = f"did you mean {close!r}?" if close else "add it as one of [[models]]"
            raise SettingsError(
                f"{where}: aliases: {alias!r} points at {target!r}, an unknown model; {hint}"
            )


def _end_of(alias: str, aliases: Mapping[str, str]) -> str:
    """What a chain of aliases leads to, for a message."""
    seen = set()
    while alias in aliases and alias not in seen:
        seen.add(alias)
        alias = aliases[alias]
    return "the id of a model, for these lead in a circle" if alias in seen else repr(alias)


def _check_id(name: str, at: str) -> None:
    """Refuse a name that nobody could ask for, or under which no node would list a model."""
    if not name or not name.isprintable() or name != name.strip():
        raise SettingsError(
            f"{at}: {name!r} is not a name: it is empty, or has white space around it"
        )
    scheme, colon, rest = name.partition(":")
    if colon and scheme in _SOURCES:
        raise SettingsError(
            f"{at}: {name!r} names its source, which is not part of an id; write {rest!r}, "
            f"with source = {name!r}"
        )


def _check_capabilities(given: Sequence[str], at: str) -> None:
    """Refuse what no request needs: requests would pass the model by, and nobody would know why."""
    for word in given:
        if word not in CAPABILITIES:
            close = nearest(word, CAPABILITIES)
            hint = f"did you mean {close}?" if close else f"known: {', '.join(CAPABILITIES)}"
            raise SettingsError(f"{at}: {word!r} is not a capability; {hint}")


class ProfileFile:
    """The catalogue as it stands on disk; re-read when the file changes.

    A change that does not parse is refused whole: ``current`` stays what it was, ``failures``
    counts it and ``on_failure`` is told why, once per version of the file.
    """

    __slots__ = ("_on_failure", "_path", "_stamp", "current", "failures", "generation")

    def __init__(
        self,
        path: Path | None,
        current: Profiles | None = None,
        on_failure: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._path = path
        self._on_failure = on_failure
        self._stamp = stamp_of(path)
        self.current = current or Profiles()
        self.failures = 0
        self.generation = 0

    @classmethod
    def open(cls, path: Path, on_failure: Callable[[str], object] = lambda _: None) -> ProfileFile:
        """Read ``path`` now and watch it from then on.

        Raises:
            SettingsError: It is missing or cannot be used.
        """
        made = cls(path, None, on_failure)
        made.current = load_profiles(path)
        return made

    def refresh(self) -> bool:
        """Re-read the file if it changed; True when ``current`` is new. Costs one ``stat``."""
        stamp = stamp_of(self._path)
        if self._path is None or stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.current = load_profiles(self._path)
        except SettingsError as error:
            self.failures += 1
            self._on_failure(str(error))
            return False
        self.generation += 1
        return True
