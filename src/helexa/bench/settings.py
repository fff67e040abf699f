"""helexa-bench.toml: what is measured, how often, and where it is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from helexa.core.folders import user_folder
from helexa.core.settings import Loaded, Secret, SettingsError, as_header, load

DEFAULT_PATH = Path("/etc/helexa-bench/helexa-bench.toml")
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class SweepSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[bench]``.

    Args:
        sweep_interval_secs: Between the end of a sweep and the next one.
        samples_per_version: Runs of one cell after which it is left alone until the build changes.
        iteration_pause_secs: Between two runs, so that a target can settle.
        request_timeout_secs: Longest wait for one answer.
        quiet_wait_secs: How long a busy target is waited for before its cell is put off.
        db_path: The store; absent, ``helexa-bench.sqlite`` in the state directory.
        seed: Of prompts and arrivals; the same for every target.
    """

    sweep_interval_secs: Seconds = 1800
    samples_per_version: Positive = 5
    iteration_pause_secs: Seconds = 2
    request_timeout_secs: Annotated[float, msgspec.Meta(gt=0)] = 600
    quiet_wait_secs: Seconds = 60
    db_path: Path | None = None
    seed: int = 1


class ProbePrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[scenarios.capability_probes]]``: a prompt whose answer is scored by hand.

    Args:
        name: What it is called in reports.
        prompt: What is asked.
    """

    name: str
    prompt: str


class ScenarioSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[scenarios]``.

    Args:
        prompt_sizes: Prompt tokens of the ``chat`` scenarios.
        max_tokens: Output cap of every run.
        concurrency_levels: Identical streams at once.
        prefix_sizes: Shared prompt tokens of the second turn of a conversation.
        arrival_rates: Requests per second of open-loop runs (Poisson).
        names: Others by name: ``tools``, ``structured``, ``cold``, ``swap``.
    """

    prompt_sizes: tuple[Positive, ...] = (128, 4096)
    max_tokens: Positive = 256
    concurrency_levels: tuple[Positive, ...] = ()
    prefix_sizes: tuple[Positive, ...] = ()
    arrival_rates: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()
    names: tuple[str, ...] = ()
    capability_probes: tuple[ProbePrompt, ...] = ()


class TargetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[targets]]``.

    Args:
        name: What it is called in reports.
        kind: ``neuron`` is asked for its build, devices and models; ``openai`` is any endpoint
            that speaks Chat Completions.
        endpoint: Its base URL.
        label: Shown instead of the hardware.
        models: Measured ones; empty: every loaded model of a neuron, every listed one of an
            endpoint.
        api_key: The key to ask with.
        api_key_env: Environment variable that holds it.
        build: What is running there, for endpoints that do not say.
    """

    name: str
    kind: Literal["neuron", "openai"]
    endpoint: str
    label: str | None = None
    models: tuple[str, ...] = ()
    api_key: Secret | None = None
    api_key_env: str | None = None
    build: str | None = None

    def key(self, environ: Mapping[str, str]) -> str | None:
        """The key to ask with.

        Raises:
            SettingsError: The named variable is not set, or no header can carry the key.
        """
        key = None if self.api_key is None else self.api_key.reveal()
        if self.api_key_env is not None:
            key = environ.get(self.api_key_env)
            if key is None:
                raise SettingsError(
                    f"targets: {self.name!r} wants its key from {self.api_key_env}, which is not "
                    "set"
                )
        try:
            return None if key is None else as_header(key)
        except SettingsError as error:
            raise SettingsError(f"targets: {self.name!r}: {error}") from error


class ApiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[api]``: the read-only API and the pages.

    Args:
        enabled: Serve them beside the sweeps of ``helexa bench run``.
        listen: Address, ``host:port``; port 0 takes any free one, ``[::]`` is every address of IPv6
            and IPv4.
        show_hosts: Name machines, not only their hardware.
    """

    enabled: bool = True
    listen: str = "0.0.0.0:13132"
    show_hosts: bool = False


class BenchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Args:
        capability_probes: The same as those of ``[scenarios]``, for files that name no table.
    """

    bench: SweepSettings = SweepSettings()
    scenarios: ScenarioSettings = ScenarioSettings()
    api: ApiSettings = ApiSettings()
    targets: tuple[TargetSettings, ...] = ()
    capability_probes: tuple[ProbePrompt, ...] = ()

    def database(self, environ: Mapping[str, str]) -> Path:
        """Where the store is."""
        return self.bench.db_path or state_directory(environ) / "helexa-bench.sqlite"


def state_directory(environ: Mapping[str, str]) -> Path:
    """``$STATE_DIRECTORY`` of a service, else ``$XDG_STATE_HOME/helexa``."""
    given = environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.split(":")[0])
    return user_folder("XDG_STATE_HOME", ".local/state", environ) / "helexa"


def load_settings(
    path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> Loaded[BenchSettings]:
    """Read and check the settings.

    Raises:
        SettingsError: With the key and a way out.
    """
    loaded = load(
        BenchSettings,
        prefix="BENCH_",
        path=path,
        default_path=DEFAULT_PATH,
        flags=flags,
        environ=environ,
    )
    names = [target.name for target in loaded.value.targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"targets: the name {twice[0]!r} is given twice; names must differ")
    return Loaded(_gathered(loaded.value), loaded.warnings, loaded.path)


def _gathered(settings: BenchSettings) -> BenchSettings:
    """All probes where they are read."""
    probes = (*settings.scenarios.capability_probes, *settings.capability_probes)
    scenarios = msgspec.structs.replace(settings.scenarios, capability_probes=probes)
    return msgspec.structs.replace(settings, scenarios=scenarios, capability_probes=())
