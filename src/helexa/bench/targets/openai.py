"""Any endpoint that speaks Chat Completions: a peer to compare with, a gateway, a hosted API."""

from __future__ import annotations

from typing import Any

from helexa.bench.probe.stream import Prober
from helexa.bench.row import DeviceState, ModelFacts, Provenance
from helexa.bench.settings import TargetSettings
from helexa.bench.targets.base import Survey, Surveyed, TargetDown, call

_UNKNOWN = "unknown"


class OpenaiTarget:
    """See ``targets.base.Target``."""

    def __init__(
        self, settings: TargetSettings, key: str | None, timeout_s: float, bench_version: str
    ) -> None:
        self.name = settings.name
        self.prober = Prober(settings.endpoint, key, timeout_s)
        # Answers of equal length; taken back if the endpoint refuses what it does not know.
        self.extras: dict[str, object] = {"ignore_eos": True, "temperature": 0}
        self._settings = settings
        self._base = settings.endpoint.rstrip("/").removesuffix("/v1")
        self._key = key
        self._bench_version = bench_version

    async def survey(self) -> Survey:
        """Build as far as it says, and the models it lists."""
        build = await self.build()
        listed = await call("GET", f"{self._base}/v1/models", key=self._key)
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            raise TargetDown(f"{self._base}/v1/models lists no models")
        ids = [e["id"] for e in entries if isinstance(e, dict) and isinstance(e.get("id"), str)]
        wanted = self._settings.models or ids
        source = Provenance(
            target=self.name,
            kind="openai",
            endpoint=self._base,
            build=build,
            label=self._settings.label or "",
            package_version=build,
            bench_version=self._bench_version,
        )
        return Survey(
            source,
            tuple(Surveyed(ModelFacts(id_)) for id_ in wanted if id_ in ids),
            tuple(id_ for id_ in wanted if id_ not in ids),
        )

    async def build(self) -> str:
        """As configured, else what one of the usual routes says."""
        if self._settings.build is not None:
            return self._settings.build
        for path in ("/version", "/api/version", "/props"):
            try:
                said = await call("GET", self._base + path, key=self._key)
            except TargetDown as error:
                if "answered" not in str(error) and "JSON" not in str(error):
                    raise  # nobody is there: no other route will be
                continue
            build = _build_in(said)
            if build:
                return build
        return _UNKNOWN

    async def busy(self) -> str | None:
        """Nobody can tell from outside."""
        return None

    async def device(self) -> DeviceState:
        """Nothing is known."""
        return DeviceState()

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Not ours to do."""
        del wait
        raise TargetDown(f"{self.name} is no neuron: it cannot be told to load {model!r}")

    async def unload(self, model: str) -> None:
        """Not ours to do."""
        raise TargetDown(f"{self.name} is no neuron: it cannot be told to unload {model!r}")


def _build_in(said: Any) -> str | None:
    """helexa's, vLLM's, Ollama's or llama.cpp's words for a version."""
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("package_version"), str):
        sha = said.get("git_sha") or ""
        return f"{said['package_version']}{f'+{sha}' if sha else ''}"
    for name in ("version", "build_info"):
        if isinstance(said.get(name), str) and said[name]:
            return str(said[name])
    return None
