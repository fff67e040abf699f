"""One run: the unit that is stored, compared and shown."""

from __future__ import annotations

import msgspec


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a run was made, and with which build.

    ``build`` is what cells are told apart by: package version and commit of a neuron, whatever
    an endpoint says of itself otherwise. ``gpus`` counts devices by name.
    """

    target: str
    kind: str
    endpoint: str
    build: str
    label: str = ""
    host: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    gpus: str = ""
    git_sha: str = ""
    git_dirty: bool = False
    package_version: str = ""
    build_time: str = ""
    engine_versions: str = ""
    bench_version: str = ""


class ModelFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model of a run as its target describes it."""

    model: str
    quant: str = ""
    engine: str = ""
    capabilities: str = ""
    devices: str = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one run of a scenario measured; times in milliseconds, rates in tokens per second.

    Args:
        prompt_asked: Prompt tokens the scenario meant; ``prompt_tokens`` is what the server
            counted.
        decode_rate: Tokens per second of one stream (median over the streams).
        throughput: Output tokens per second of all streams together.
        refused: Requests that were refused (429, 503): neither slow nor failed.
        queue_ms: Median wait for a seat that the server reported.
        goodput: Share of requests within the latency objective.
        artifact: The text of a capability probe; or detail worth keeping, as JSON.
    """

    ok: bool = True
    error: str = ""
    prompt_asked: int = 0
    prompt_tokens: int | None = None
    output_cap: int = 0
    output_tokens: int | None = None
    cached_tokens: int | None = None
    first_token_ms: float | None = None
    decode_rate: float | None = None
    total_ms: float | None = None
    inter_token_p50_ms: float | None = None
    inter_token_p99_ms: float | None = None
    concurrency: int = 1
    requests: int = 1
    refused: int = 0
    failed: int = 0
    throughput: float | None = None
    queue_ms: float | None = None
    goodput: float | None = None
    load_ms: float | None = None
    first_token_p95_ms: float | None = None
    artifact: str = ""


class DeviceState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Readings over all devices: used memory (MiB), highest utilisation and temperature."""

    memory_used_mb: int | None = None
    utilization_pct: float | None = None
    temp_c: float | None = None


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored run; ``at`` is epoch seconds, ``id`` is 0 until it is stored.

    ``key`` makes storing idempotent: the same run stored twice counts once.
    """

    at: float
    scenario: str
    source: Provenance
    model: ModelFacts
    result: Result
    before: DeviceState = DeviceState()
    after: DeviceState = DeviceState()
    key: str = ""
    score: float | None = None
    id: int = 0


def in_order(scenario: str) -> tuple[str, float, str]:
    """Sorts scenarios by kind, then by size: ``chat:128`` before ``chat:1024``."""
    kind, _, size = scenario.partition(":")
    try:
        return kind, float(size), ""
    except ValueError:
        return kind, 0.0, size


class CellKey(msgspec.Struct, frozen=True, order=True):
    """What is repeated and compared: one scenario of one model on one build of one target."""

    target: str
    build: str
    model: str
    scenario: str
