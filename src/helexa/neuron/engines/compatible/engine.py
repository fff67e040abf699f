"""The part of an engine that follows from its speaking OpenAI's dialect."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from helexa.core.errors import HelexaError, UnsupportedOperation
from helexa.neuron.engines.base import Address, EngineRequest, Served
from helexa.neuron.engines.compatible.clean import Cleaning
from helexa.neuron.engines.compatible.counting import prompt_tokens
from helexa.neuron.engines.compatible.errors import map_error
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import MakeReader
from helexa.neuron.engines.request import Json


def new_key() -> str:
    """A key that only the node and its engine know; hexadecimal, for it may become an argument and
    must not look like an option."""
    return secrets.token_hex(24)


class CompatibleEngine:
    """Base of engines that are OpenAI-compatible servers; see ``base.Engine`` for the rest.

    Args:
        environ: What engine processes inherit, less our settings and secrets.
        habits: What sets this engine apart.
        key_source: Makes API keys.
        clock: Unix time, for ``created``.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        habits: Habits,
        *,
        key_source: Callable[[], str] = new_key,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.environ = environ
        self.habits = habits
        self.new_key = key_source
        self._cleaning = Cleaning(habits, self.shape, lambda: int(clock()))

    def shape(self, body: Json, served: Served) -> MakeReader | None:  # noqa: ARG002
        """The engine's own changes to a prepared chat request, in place.

        Returns:
            What reads the answer's text, where the engine does not parse it itself.
        """
        return None

    def clean(
        self,
        route: str,
        body: bytes,
        served: Served,
        request_id: str,
        *,
        thinking: bool = False,
        plain: bool = False,  # noqa: ARG002  # it checks them all the same
    ) -> EngineRequest:
        """See ``clean.Cleaning``."""
        return self._cleaning.request(route, body, served, request_id, thinking=thinking)

    async def count(
        self, address: Address, body: bytes, served: Served, *, thinking: bool = False
    ) -> int:
        """Exact prompt tokens, by the engine's own template and tokenizer.

        Raises:
            UnsupportedOperation: The engine does not count.
        """
        if self.habits.tokenize is None:
            raise UnsupportedOperation(f"The engine of {served.model_id} does not count tokens.")
        request = self.clean("chat", body, served, "count", thinking=thinking)
        return await self.count_cleaned(address, request, served)

    async def count_cleaned(self, address: Address, asked: EngineRequest, served: Served) -> int:
        """Prompt tokens of what will be sent; a guess where the engine does not count."""
        return await prompt_tokens(address, asked, served, self.habits)

    async def render(self, address: Address, body: bytes, served: Served) -> str:  # noqa: ARG002
        """The rendered prompt, where an engine shows it."""
        raise UnsupportedOperation(f"The engine of {served.model_id} does not show its prompts.")

    def error(self, status: int, body: bytes, served: Served) -> HelexaError:
        """See ``errors.map_error``."""
        return map_error(status, body, served)
