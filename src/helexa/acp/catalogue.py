"""The models of every endpoint, under one selector: ``endpoint:model``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from helexa.acp.providers.base import Model, Provider
from helexa.acp.settings import AcpSettings
from helexa.core.errors import HelexaError, InvalidApiKey

DEFAULT_CONTEXT = 32_768


class NoModel(Exception):
    """Nothing to choose, or not what was named; the message says what there is."""


class Choice(msgspec.Struct, frozen=True):
    """One model of one endpoint."""

    endpoint: str
    model: Model

    @property
    def selector(self) -> str:
        """How it is named to the editor."""
        return f"{self.endpoint}:{self.model.id}"

    @property
    def context(self) -> int:
        """Tokens of its window; a cautious guess where nobody says."""
        return self.model.context or DEFAULT_CONTEXT

    @property
    def described(self) -> str:
        """For the picker: window, warmth, abilities."""
        words = []
        if self.model.context:
            words.append(f"{self.model.context:,} tokens")
        if self.model.warm is not None:
            words.append("warm" if self.model.warm else "asleep, is loaded when asked")
        if self.model.tools is False:
            words.append("no tools of its own")
        if self.model.vision:
            words.append("sees images")
        return ", ".join(words)


class Catalogue:
    """Asks every endpoint; keeps what the last ones said.

    Args:
        unset: Endpoints whose key was to come from a variable that is not set, with its name.

    Attributes:
        down: Endpoints that did not answer, with why.
        refused: Those of them that want another key.
        absent: Endpoints that do not list their default model, with its name.
    """

    def __init__(
        self,
        settings: AcpSettings,
        providers: Mapping[str, Provider],
        unset: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._unset = unset or {}
        self.providers = dict(providers)
        self.choices: tuple[Choice, ...] = ()
        self.down: dict[str, str] = {}
        self.refused: set[str] = set()
        self.absent: dict[str, str] = {}

    async def refresh(self) -> None:
        """Ask all of them at once; one that is down is noted and skipped."""
        answers = await asyncio.gather(
            *(provider.models() for provider in self.providers.values()), return_exceptions=True
        )
        self.down, self.refused, self.absent, found = {}, set(), {}, []
        for (name, provider), answer in zip(self.providers.items(), answers, strict=True):
            if isinstance(answer, HelexaError):
                self.down[name] = str(answer)
                if isinstance(answer, InvalidApiKey):
                    self.refused.add(name)
                    if name in self._unset:
                        self.down[name] += (
                            f" ({self._unset[name]} is not set where this was started)"
                        )
            elif isinstance(answer, BaseException):
                raise answer
            else:
                wanted = provider.endpoint.default_model
                if wanted is not None and wanted not in {model.id for model in answer}:
                    self.absent[name] = wanted
                models = sorted(answer, key=lambda m: (m.id != wanted, m.warm is False))
                found += [Choice(name, model) for model in models]
        self.choices = tuple(found)

    def default(self) -> Choice:
        """The configured one, else the first of the first endpoint that answers.

        Raises:
            NoModel: No endpoint has any.
        """
        wanted = self._settings.default_endpoint
        for choice in self.choices:
            if wanted is None or choice.endpoint == wanted:
                return choice
        if self.choices:
            return self.choices[0]
        why = "; ".join(f"{name}: {reason}" for name, reason in self.down.items())
        raise NoModel(
            f"no endpoint has a model{f' ({why})' if why else ''}; start a gateway with "
            "`helexa up`, or name another endpoint in the settings or in HELEXA_ACP_BASE_URL"
        )

    def find(self, selector: str) -> Choice:
        """By ``endpoint:model``, or by the model alone.

        Raises:
            NoModel: There is none of that name.
        """
        for choice in self.choices:
            if selector in (choice.selector, choice.model.id):
                return choice
        raise NoModel(f"there is no model {selector!r} now")
