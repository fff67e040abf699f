"""How the catalogue wants a model to be asked, ready for the path of every request."""

from __future__ import annotations

from dataclasses import dataclass

from helexa.cortex.profiles import ProfileFile, Profiles


@dataclass(frozen=True, slots=True)
class Habit:
    """What is unusual about a model.

    Args:
        stabilises: A rotating first line of its system prompts is moved behind the rest.
        thinks: It thinks unless a request says otherwise.
    """

    stabilises: bool
    thinks: bool


class Habits:
    """By concrete id, made anew when the catalogue has changed."""

    __slots__ = ("_by_id", "_made_of", "_profiles")

    def __init__(self, profiles: ProfileFile) -> None:
        self._profiles = profiles
        self._made_of: Profiles | None = None
        self._by_id: dict[str, Habit] = {}

    def of(self, model: str) -> Habit | None:
        """Those of a model; None for the many that have none."""
        current = self._profiles.current
        if current is not self._made_of:
            self._made_of = current
            habits = {p.id: Habit(p.stabilise_prefix, p.thinking == "on") for p in current.models}
            self._by_id = {i: h for i, h in habits.items() if h.stabilises or h.thinks}
        return self._by_id.get(model)
