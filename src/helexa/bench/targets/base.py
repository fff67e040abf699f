"""The interface of a target, and what it says about itself."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from helexa.bench.probe.stream import Prober
from helexa.bench.row import DeviceState, ModelFacts, Provenance
from helexa.core.errors import UpstreamFailed
from helexa.relay.client import request_json
from helexa.wire.bodies import UNREADABLE

CALL_TIMEOUT_S = 10.0


class TargetDown(Exception):
    """It did not answer, or not as its kind should; the message says which route and how."""


class Surveyed(msgspec.Struct, frozen=True):
    """A model that a target has; ``can`` is None where the target does not say."""

    facts: ModelFacts
    loaded: bool = True
    can: frozenset[str] | None = None


class Survey(msgspec.Struct, frozen=True):
    """A target as it stands: its build, and what it serves.

    Args:
        missing: Models that the settings name and the target does not list.
    """

    source: Provenance
    models: tuple[Surveyed, ...]
    missing: tuple[str, ...] = ()


class Target(Protocol):
    """One thing that is measured."""

    name: str
    prober: Prober
    extras: dict[str, object]
    """Members added to every request; the same meaning everywhere, spelled as it is there."""

    async def survey(self) -> Survey:
        """Ask for build and models.

        Raises:
            TargetDown: It does not answer.
        """

    async def build(self) -> str:
        """The build that runs now; cheap, asked before and after every run.

        Raises:
            TargetDown: It does not answer.
        """

    async def busy(self) -> str | None:
        """Why it should be left alone just now: somebody else's work."""

    async def device(self) -> DeviceState:
        """Readings; empty where there are none."""

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load a model and wait for it; or only have it begun.

        Raises:
            TargetDown: It cannot, or will not.
        """

    async def unload(self, model: str) -> None:
        """Unload a model and wait for it.

        Raises:
            TargetDown: It cannot, or will not.
        """


async def call(
    method: str,
    url: str,
    body: object = None,
    *,
    key: str | None = None,
    timeout_s: float = CALL_TIMEOUT_S,
) -> Any:
    """A management call; the decoded answer of a 2xx.

    Raises:
        TargetDown: Anything else.
    """
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        answer = await request_json(method, url, body, headers=headers, timeout=timeout_s)
    except UpstreamFailed as error:
        raise TargetDown(str(error)) from error
    if not 200 <= answer.status < 300:
        text = answer.body[:200].decode("utf-8", "replace")
        raise TargetDown(f"{method} {url} answered {answer.status}: {text}")
    try:
        return msgspec.json.decode(answer.body) if answer.body else None
    except UNREADABLE as error:
        raise TargetDown(f"{method} {url} did not answer with JSON: {error}") from error
