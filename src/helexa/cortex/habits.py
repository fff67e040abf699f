"""How the catalogue wants a model to be asked, ready for the path of every request."""

from __future__ import annotations

from helexa.cortex.profiles import ProfileFile, Profiles


class Habits:
    """Sets of concrete ids, made anew when the catalogue has changed."""

    __slots__ = ("_made_of", "_profiles", "_stabilised", "_thinking")

    def __init__(self, profiles: ProfileFile) -> None:
        self._profiles = profiles
        self._made_of: Profiles | None = None
        self._stabilised: frozenset[str] = frozenset()
        self._thinking: frozenset[str] = frozenset()

    def stabilises(self, model: str) -> bool:
        """A rotating first line of its system prompts is moved behind the rest."""
        if self._profiles.current is not self._made_of:
            self._renew()
        return model in self._stabilised

    def thinks(self, model: str) -> bool:
        """It thinks unless a request says otherwise."""
        if self._profiles.current is not self._made_of:
            self._renew()
        return model in self._thinking

    def _renew(self) -> None:
        current = self._made_of = self._profiles.current
        self._stabilised = frozenset(p.id for p in current.models if p.stabilise_prefix)
        self._thinking = frozenset(p.id for p in current.models if p.thinking == "on")
