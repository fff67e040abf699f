"""The ``command`` engines behind the protocol of ``base.py``."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from helexa.core.errors import HelexaError, ServiceUnavailable, TryLater, UpstreamFailed
from helexa.core.settings import SettingsError
from helexa.neuron.engines.base import Address, Host, Launch, LoadFigures, Plan, Served, Verdict
from helexa.neuron.engines.command.child import LOOPBACK, CommandConfig
from helexa.neuron.engines.command.places import check_places, fill, uses
from helexa.neuron.engines.compatible.engine import CompatibleEngine, new_key
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import MakeReader
from helexa.neuron.engines.compatible.reading import make_reader
from helexa.neuron.engines.environ import engine_environ
from helexa.neuron.engines.http import Answer, ask
from helexa.neuron.engines.request import Json
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan import Room, Wanted, fit
from helexa.neuron.settings import CommandSettings

_CHILD = "helexa.neuron.engines.command.child"
_POLL_S = 0.1
_PROBE_TIMEOUT_S = 120.0
_NOT_HERE = "Ask for a model on another engine, or leave it out."


class CommandEngine(CompatibleEngine):
    """One ``[engines.command.<name>]``.

    Args:
        name: The engine's name, which models ask for.
        settings: The section.

    Raises:
        SettingsError: Its command has a place that is unknown, or none for the port.
    """

    def __init__(
        self,
        name: str,
        settings: CommandSettings,
        environ: Mapping[str, str],
        *,
        key_source: Callable[[], str] = new_key,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check(name, settings)
        super().__init__(environ, habits_of(settings), key_source=key_source, clock=clock)
        self.name = name
        self._settings = settings
        self._launched: dict[str, Served] = {}  # for the probe, which is told the id only

    def version(self) -> str | None:
        """A command line has none that it could be asked for."""
        return None

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:  # noqa: ARG002
        """The models of its list; what the server makes of them shows when it loads."""
        models = self._settings.models
        if not models or facts.model_id in models:
            return Verdict(True)
        where = f"engines.command.{self.name}.models"
        return Verdict(False, "not_listed", f"{where} does not name {facts.model_id}")

    def plan(self, facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
        """What fits, by the model's own figures; the server gets it through its places.

        Raises:
            InsufficientVram: With the figures and the nearest thing that would fit.
        """
        given: dict[str, Any] = {k: v for k, v in wanted.items() if v is not None}
        given.setdefault("slots", self._settings.slots)
        given.setdefault("ctx", self._settings.context)
        given.setdefault("embeddings", self._settings.embeddings or facts.pooling == "mean")
        given.setdefault("rerank", facts.pooling == "rank")
        asked = msgspec.convert(_members(given, Wanted), Wanted)
        return fit(facts, host, asked, msgspec.convert(_members(given, Room), Room))

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """The process that owns the server, with what fills the places."""
        key, settings = self.new_key(), self._settings
        self._launched[model_id] = Served(model_id, facts, plan, plan.context)
        config = CommandConfig(
            command=tuple(settings.command),
            values=values_of(facts, plan, model_id),
            env=settings.env,
            api_key=key,
            key_name=settings.key_name,
        )
        environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        if plan.devices:
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, plan.devices))
        return Launch(
            argv=(sys.executable, "-m", _CHILD, "--engine", self.name, "--model", model_id),
            env=engine_environ(self.environ, **environ),
            secret=msgspec.json.encode(config),
            api_key=key,
        )

    async def ready(self, address: Address, model_id: str) -> None:
        """Poll the health path, then ask for one token (or a vector).

        Raises:
            ServiceUnavailable: The server is healthy and gives none.
        """
        while not await self._healthy(address):  # noqa: ASYNC110 - another process gets ready
            await asyncio.sleep(_POLL_S)
        await self._sane(address, model_id)

    async def _healthy(self, address: Address) -> bool:
        try:
            return (await ask(address, "GET", self._settings.health)).status == 200
        except (UpstreamFailed, TryLater):
            return False

    async def _sane(self, address: Address, model_id: str) -> None:
        """One answer of the kind that the model gives."""
        served = self._launched[model_id]
        path, body = probe(served, self.habits)
        answer = await ask(address, "POST", path, body, timeout_s=_PROBE_TIMEOUT_S)
        if answer.status != 200:
            text = answer.body[:300].decode("utf-8", "replace")
            raise ServiceUnavailable(f"{model_id} loaded but gave no token: {text}")
        if not _answered(answer):
            raise ServiceUnavailable(
                f"{model_id} loaded but its first answer holds nothing: the server is no "
                "OpenAI-compatible one, or the model is damaged"
            )

    def shape(self, body: Json, served: Served) -> MakeReader | None:
        """Nothing more is done to the request; what reads its answer."""
        return make_reader(body, served, self._settings.parsers)

    async def load(self, address: Address) -> LoadFigures:  # noqa: ARG002
        """Nothing is known of a server in general."""
        return LoadFigures()


def check(name: str, settings: CommandSettings) -> None:
    """See that a section can be used.

    Raises:
        SettingsError: With the path of the setting, and what to write.
    """
    where = f"engines.command.{name}"
    if not settings.command:
        raise SettingsError(f"{where}.command is empty; name the program and its arguments")
    texts = [*settings.command, *settings.env.values()]
    check_places(settings.command, f"{where}.command")
    check_places(settings.env.values(), f"{where}.env")
    check_places([settings.model_name], f"{where}.model_name")
    if not uses(texts, "port"):
        raise SettingsError(f"{where}.command has no {{port}}; the server has to listen there")


def habits_of(settings: CommandSettings) -> Habits:
    """What the section says of the server."""

    def model(served: Served) -> str:
        return fill(settings.model_name, values_of(served.facts, served.plan, served.model_id))

    return Habits(
        continuous=settings.continuous_usage,
        refused=dict.fromkeys(settings.unsupported, _NOT_HERE),
        members=settings.members,
        model=model,
        stops=settings.cuts_at_stop,
        done=False,
        tokenize=settings.tokenize,
    )


def values_of(facts: ModelFacts, plan: Plan, model_id: str) -> dict[str, str]:
    """What stands in the places, but for those that only the starting process knows."""
    return {
        "model": str(facts.path),
        "served_id": model_id,
        "host": LOOPBACK,
        "context": str(plan.context),
        "slots": str(plan.slots),
        "total_context": str(plan.kv_cells),
        "devices": ",".join(map(str, plan.devices)),
        "tensor_parallel": str(len(plan.devices) or 1),
        "gpu_layers": str(plan.gpu_layers),
        "threads": str(plan.threads),
    }


def probe(served: Served, habits: Habits) -> tuple[str, Json]:
    """Path and body of the least request that shows a model working."""
    name = habits.model(served) if habits.model is not None else served.model_id
    body: Json = {"model": name, **habits.members}
    if "text" in served.facts.capabilities and not served.plan.rerank:
        words = [{"role": "user", "content": "Hello"}]
        return habits.paths["chat"], {**body, "messages": words, "max_tokens": 1}
    if served.plan.rerank:
        return habits.paths["rerank"], {**body, "query": "Hello", "documents": ["Hello"]}
    return habits.paths["embeddings"], {**body, "input": "Hello"}


def _answered(answer: Answer) -> bool:
    """Whether it is an answer, and its figures are finite numbers."""
    try:
        found = answer.json()
        if isinstance(found.get("data"), list):
            return all(math.isfinite(x) for row in found["data"] for x in row["embedding"])
        return bool(found.get("choices") or found.get("results"))
    except (HelexaError, AttributeError, LookupError, TypeError):
        return False


def _members(given: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: given[name] for name in kind.__struct_fields__ if name in given}
