"""A neuron: it tells its build, its devices and its models, and loads what it is told to."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import msgspec

from helexa.bench.probe.stream import Prober
from helexa.bench.row import DeviceState, ModelFacts, Provenance
from helexa.bench.settings import TargetSettings
from helexa.bench.targets.base import Survey, Surveyed, TargetDown, call
from helexa.core.fleet import Discovery, Health, LoadRequest, ModelEntry, NodeVersion, UnloadRequest

T = TypeVar("T")


class NeuronTarget:
    """See ``targets.base.Target``.

    Args:
        bench_version: Of this program, for the provenance.
        load_timeout_s: For a whole load.
    """

    def __init__(
        self, settings: TargetSettings, key: str | None, timeout_s: float, bench_version: str
    ) -> None:
        self.name = settings.name
        self.prober = Prober(settings.endpoint, key, timeout_s)
        self.extras: dict[str, object] = {"ignore_eos": True, "temperature": 0}
        self._settings = settings
        self._base = settings.endpoint.rstrip("/").removesuffix("/v1")
        self._key = key
        self._load_timeout_s = timeout_s
        self._bench_version = bench_version
        self._loaded_as: dict[str, dict[str, Any]] = {}

    async def survey(self) -> Survey:
        """Build, hardware and models."""
        version = await self._get("/version", NodeVersion)
        found = await self._get("/discovery", Discovery)
        entries = await self._get("/models", list[ModelEntry])
        self._loaded_as |= {entry.id: entry.loaded_as for entry in entries if entry.loaded_as}
        wanted = self._settings.models
        models = tuple(
            _surveyed(entry, version, found)
            for entry in entries
            if (entry.id in wanted if wanted else entry.status == "loaded")
        )
        asleep = [id_ for id_ in wanted if id_ not in {entry.id for entry in entries}]
        models += tuple(Surveyed(ModelFacts(id_), loaded=False) for id_ in asleep)
        return Survey(self._provenance(version, found), models)

    async def build(self) -> str:
        """Package version and commit."""
        return build_of(await self._get("/version", NodeVersion))

    async def busy(self) -> str | None:
        """Requests of others, or a load under way."""
        health = await self._get("/health", Health)
        for model in health.models:
            if model.in_flight or model.queue_depth:
                return f"{model.id} has {model.in_flight} running, {model.queue_depth} waiting"
        if health.activation.in_progress:
            return f"{health.activation.in_progress} is being loaded"
        return None

    async def device(self) -> DeviceState:
        """Over all its devices."""
        try:
            readings = (await self._get("/health", Health)).devices
        except TargetDown:
            return DeviceState()
        return DeviceState(
            sum(r.vram_used_mb for r in readings) if readings else None,
            max((r.utilization_pct for r in readings if r.utilization_pct is not None),
                default=None),
            max((r.temp_c for r in readings if r.temp_c is not None), default=None),
        )  # fmt: skip

    async def load(self, model: str, *, wait: bool = True) -> None:
        """With the quant, source and settings it was found with.

        Without them the node would load what it takes by default: another model, measured under
        this one's name and left behind in its place.
        """
        path = "/models/load" if wait else "/models/load?wait=false"
        await self._post(path, self._loaded_as.get(model) or LoadRequest(model))

    async def unload(self, model: str) -> None:
        """Answers when it is gone."""
        await self._post("/models/unload", UnloadRequest(model))

    async def _post(self, path: str, body: object) -> None:
        url = self._base + path
        await call("POST", url, body, key=self._key, timeout_s=self._load_timeout_s)

    async def _get(self, path: str, kind: type[T]) -> T:
        answer = await call("GET", self._base + path, key=self._key)
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise TargetDown(f"{self._base}{path} is no neuron's: {error}") from error

    def _provenance(self, version: NodeVersion, found: Discovery) -> Provenance:
        gpus = Counter(device.name for device in found.devices)
        return Provenance(
            target=self.name,
            kind="neuron",
            endpoint=self._base,
            build=build_of(version),
            label=self._settings.label or "",
            host=found.hostname,
            driver_version=found.driver_version or "",
            cuda_version=found.cuda_version or "",
            gpus=", ".join(f"{count}× {name}" for name, count in sorted(gpus.items())),
            git_sha=version.git_sha_long or version.git_sha,
            git_dirty=version.git_dirty,
            package_version=version.package_version,
            build_time=version.build_timestamp or "",
            engine_versions=", ".join(f"{k} {v}" for k, v in sorted(version.engines.items())),
            bench_version=self._bench_version,
        )


def build_of(version: NodeVersion) -> str:
    """What tells builds apart: ``0.1.0+abc1234``, ``-dirty`` if it was."""
    sha = f"+{version.git_sha}" if version.git_sha else ""
    return f"{version.package_version}{sha}{'-dirty' if version.git_dirty else ''}" or "unknown"


def _surveyed(entry: ModelEntry, version: NodeVersion, found: Discovery) -> Surveyed:
    names: dict[int, Any] = {device.index: device.name for device in found.devices}
    engine = f"{entry.harness} {version.engines.get(entry.harness, '')}".strip()
    can = set(entry.capabilities)
    if entry.tool_call:
        can.add("tools")
    if entry.reasoning:
        can.add("reasoning")
    facts = ModelFacts(
        model=entry.id,
        quant=entry.loaded_as.get("quant") or "",
        engine=engine,
        capabilities=", ".join(sorted(can)),
        devices=", ".join(str(names.get(i, i)) for i in entry.devices),
    )
    return Surveyed(facts, entry.status == "loaded", frozenset(can))
