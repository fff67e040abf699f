"""neuron.toml as frozen structs. Every key has a default; unknown keys stop the start.

::

    port, host?, name?, state_dir?, default_source
    [[default_models]]           what to load at boot
    [engines.llamacpp | vllm]    how engines run; [engines.command.<name>] any other server
    [sources.<scheme>]           where model files come from
    [fleet] [prefix_cache] [admission] [memory] [context_limit] [grants] [life]

``NEURON_MAX_PROMPT_TOKENS`` and ``NEURON_MIN_FREE_VRAM_MB`` are clamps: they only ever lower what
the file allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from helexa.core.fleet_secret import FleetSettings
from helexa.core.folders import user_folder
from helexa.core.settings import Secret, SettingsError

DEFAULT_PATH = Path("/etc/neuron/neuron.toml")
PREFIX = "NEURON_"
MAX_PROMPT_TOKENS = "NEURON_MAX_PROMPT_TOKENS"
MIN_FREE_VRAM_MB = "NEURON_MIN_FREE_VRAM_MB"
RESERVED = frozenset((MAX_PROMPT_TOKENS, MIN_FREE_VRAM_MB))

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Patience = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Parsers = Literal["auto", "none", "tagged", "mistral", "llama", "deepseek"]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every section."""


class DefaultModel(_Section, frozen=True):
    """One ``[[default_models]]``: loaded in the background at boot, retried until it works.

    Args:
        model_id: ``org/name``, with the scheme of a source where it needs one, or a path.
        harness: Name of the engine that runs it; absent, the one that suits.
        quant: Which of several files of a repository, such as ``Q4_K_M``.
        source: A path, or a scheme of ``[sources]``; absent, ``default_source``.
        tensor_parallel: Devices that share the model.
        devices: Indices of the devices it may use; absent, any.
        engine: Settings of the engine for this model, over those of ``[engines]``.
    """

    model_id: str
    harness: str | None = None
    quant: str | None = None
    source: str | None = None
    tensor_parallel: Positive | None = None
    devices: list[Count] | None = None
    engine: dict[str, Any] | None = None


class LlamaCppExtra(_Section, frozen=True):
    """``[engines.llamacpp.extra]``: what hardly anybody has to set; absent, the plan decides.

    Args:
        batch: Tokens of a prompt that are read between two looks at the queue.
        n_ubatch: The same, as llama.cpp calls it.
        unified: One pool of KV cells that the slots share.
        cells: Most cells of that pool.
        max_devices: Most GPUs to spread a model over.
        threads_batch: CPU threads while a prompt is read.
        poll: Share of time a waiting thread spins, 0 to 100 (builds without OpenMP).
        spin: Turns an OpenMP thread spins at a barrier before it sleeps.
        main_gpu: Place, among the GPUs used, of the one that holds what is not split.
        split_mode: How a model is divided between GPUs.
        flash_attention: ``auto`` is where it is faster.
        image_max_tokens: Larger pictures are made smaller; 0 is the model's own bound.
        mlock: Keep the weights from being swapped out.
    """

    batch: Positive | None = None
    n_ubatch: Positive | None = None
    unified: bool | None = None
    cells: Positive | None = None
    max_devices: Positive | None = None
    threads_batch: Positive | None = None
    poll: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    spin: Count | None = None
    main_gpu: Count | None = None
    split_mode: Literal["none", "layer", "row", "tensor"] | None = None
    flash_attention: Literal["auto", "on", "off"] | None = None
    image_max_tokens: Count | None = None
    mlock: bool | None = None

    def given(self) -> dict[str, object]:
        """What is set, by the names that plans use."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        chunk = found.pop("n_ubatch")
        found["batch"] = found["batch"] or chunk
        return {name: value for name, value in found.items() if value is not None}


class LlamaCppSettings(_Section, frozen=True):
    """``[engines.llamacpp]``; what is absent is decided by the plan.

    Args:
        slots: Requests that run at once.
        ctx: Tokens of context per slot.
        gpu_layers: Layers on the GPU; absent, all that fit.
        kv_type: ``f16``, ``q8_0`` or ``q4_0``.
        threads: CPU threads.
        embeddings: Serve embeddings beside chat.
        extra: Further parameters of the engine.
    """

    slots: Positive | None = None
    ctx: Positive | None = None
    gpu_layers: Count | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = None
    threads: Positive | None = None
    embeddings: bool | None = None
    extra: LlamaCppExtra = LlamaCppExtra()


class VllmSettings(_Section, frozen=True):
    """``[engines.vllm]``.

    Args:
        args: Further arguments of its server, passed on as they are; they win over ours.
        python: The interpreter that has vLLM; absent, one is looked for (docs/vllm.md).
    """

    args: list[str] = []
    python: Path | None = None


class CommandSettings(_Section, frozen=True):
    """``[engines.command.<name>]``: any OpenAI-compatible server.

    Args:
        command: Command line with places such as ``{port}`` and ``{model}``; see
            ``helexa.neuron.engines.command.places``.
        health: Path that answers 200 when it is ready.
        models: Ids it serves, before any other engine; empty is every model that none other takes.
        env: Added to the server's environment; places are filled here too.
        model_name: What the server calls the model, with places.
        members: Added to the body of every request.
        unsupported: Members of a request that the server ignores: clients are told so.
        parsers: How its text is read for thoughts and tool calls: ``auto`` (as the chat template
            teaches), ``none``, ``tagged``, ``mistral``, ``llama`` or ``deepseek``.
        cuts_at_stop: It ends an answer before a stop string; false where it ignores them or leaves
            them in the text.
        continuous_usage: It knows ``stream_options.continuous_usage_stats``.
        tokenize: Path where it counts a prompt's tokens: ``/tokenize`` as vLLM does, or one that
            ends in ``/input_tokens`` and takes the request itself.
        key_name: Name of the key in ``{env_file}``.
        slots: Requests that run at once.
        context: Tokens of context per slot; absent, what fits.
        embeddings: Serve embeddings beside chat.
    """

    command: list[str]
    health: str = "/health"
    models: list[str] = []
    env: dict[str, str] = {}
    model_name: str = "{served_id}"
    members: dict[str, Any] = {}
    unsupported: list[str] = []
    parsers: Parsers = "auto"
    cuts_at_stop: bool = True
    continuous_usage: bool = False
    tokenize: str | None = None
    key_name: str = "API_KEY"
    slots: Positive = 1
    context: Positive | None = None
    embeddings: bool = False


class EnginesSettings(_Section, frozen=True):
    """``[engines]``."""

    llamacpp: LlamaCppSettings = LlamaCppSettings()
    vllm: VllmSettings = VllmSettings()
    command: dict[str, CommandSettings] = {}


class SourceSettings(_Section, frozen=True):
    """``[sources.<scheme>]``: a hub or a folder that model files come from.

    Args:
        endpoint: Base URL of a hub, or a folder of models. ``hf`` has one of its own.
        auth_env: Variable with the token for it.
        cache_dir: Where fetched files are kept.
    """

    endpoint: str | None = None
    auth_env: str | None = None
    cache_dir: Path | None = None


class PrefixCacheSettings(_Section, frozen=True):
    """``[prefix_cache]``: host memory for prompts that may come again (MiB per model).

    Args:
        budget_mb: Most of it per model; 0 keeps none.
    """

    budget_mb: Count = 256


class AdmissionSettings(_Section, frozen=True):
    """``[admission]``: who may run and who waits; per model.

    Args:
        max_in_flight: Requests that run at once; absent, as many as the engine has slots.
        max_queue_depth: Requests that wait while all seats are taken; one more is refused. A seat
            that is kept free for others makes room for one more.
        max_wait_secs: Longest wait for a seat.
        max_per_principal: Requests of one key that run or wait; 0 is any number.
        reserve_seats: Kept free for principals that hold none, also while nobody else asks: with
            two seats or more, one principal runs at most ``slots − reserve_seats`` requests. Set
            it to 0 where there is only one, or give the engine a slot more.
    """

    max_in_flight: Positive | None = None
    max_queue_depth: Count = 8
    max_wait_secs: Seconds = 30.0
    max_per_principal: Count = 0
    reserve_seats: Count = 1


class MemorySettings(_Section, frozen=True):
    """``[memory]``: what the node may fill with models.

    Args:
        host_mb: Host memory (MiB) for all models together; absent, whatever is free. What a
            model was given counts, whether or not its engine uses it yet.
    """

    host_mb: Positive | None = None


class ContextLimitSettings(_Section, frozen=True):
    """``[context_limit]``: how the advertised context is derived (docs/limits.md).

    Args:
        enabled: Heed how long a prompt would take; false leaves the model's own maximum and memory.
        target_prefill_latency_secs: A prompt is no longer than what is read in this time.
        bootstrap_prefill_tok_per_sec: Taken for the speed of reading until it was measured.
        activation_headroom_mb: Left free on every device when a load is planned (MiB).
        min_free_floor_mb: With less free than that on a device a model takes no work (MiB).
        output_reserve_tokens: Kept of the context for the answer, at most a quarter of it.
    """

    enabled: bool = True
    target_prefill_latency_secs: Patience = 120.0
    bootstrap_prefill_tok_per_sec: Rate = 800.0
    activation_headroom_mb: Count = 2048
    min_free_floor_mb: Count = 1500
    output_reserve_tokens: Positive = 8192


class GrantSettings(_Section, frozen=True):
    """``[grants]``: what requests with a budget may still use.

    Args:
        slice_tokens: More is asked for when half of this is left (tokens).
        wait_ms: At the end of a grant an answer waits so long for more, then it is cut. A gateway
            that listens and has not answered is waited for longer.
    """

    slice_tokens: Positive = 512
    wait_ms: Count = 250


class LifeSettings(_Section, frozen=True):
    """``[life]``: the bounds of everything that starts or ends (seconds).

    Args:
        load_secs: A model that is not ready by then has failed.
        unload_secs: Running requests may finish for this long, then they are ended.
        drain_secs: The same at shutdown.
        idle_ttl_secs: Unload a model nobody used for so long; 0 never.
        watchdog_secs: Least time without any progress before an engine is killed.
        retry_secs: First and longest pause between attempts at a boot-time model.
        record_secs: A finished record whose gateway has not come for it by then is given up.
    """

    load_secs: Patience = 600.0
    unload_secs: Seconds = 10.0
    drain_secs: Seconds = 30.0
    idle_ttl_secs: Seconds = 0.0
    watchdog_secs: Patience = 60.0
    retry_secs: tuple[Patience, Patience] = (1.0, 60.0)
    record_secs: Seconds = 604_800.0


class NeuronSettings(_Section, frozen=True):
    """neuron.toml.

    Args:
        port: 0 takes any free one.
        host: Address to bind; absent, every address of IPv4 with a fleet secret, and ``::`` is
            every one of IPv6 and IPv4. Without a secret it is always loopback.
        name: How the node calls itself; absent, the host's name.
        state_dir: Records, engine logs, measured figures; absent, the user's state directory.
        default_source: Scheme of ``[sources]`` in which ids without one are looked for; absent,
            ``hf``.
        url: Base URL under which gateways reach this node; absent, the one it was asked under.
        local_socket: Listen on ``neuron.sock`` in the state directory too, for gateways of the
            same user on this machine.
        multiplex: Let a gateway bring many requests over one connection.
        commit_ms: When a direct caller's streamed answer gets its header at the latest.
        max_body_mb: Longest request body (MiB).
    """

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 13131
    host: str | None = None
    name: str | None = None
    state_dir: Path | None = None
    url: str | None = None
    default_source: str | None = None
    default_models: list[DefaultModel] = []
    engines: EnginesSettings = EnginesSettings()
    sources: dict[str, SourceSettings] = {}
    fleet: FleetSettings = FleetSettings()
    prefix_cache: PrefixCacheSettings = PrefixCacheSettings()
    admission: AdmissionSettings = AdmissionSettings()
    memory: MemorySettings = MemorySettings()
    context_limit: ContextLimitSettings = ContextLimitSettings()
    grants: GrantSettings = GrantSettings()
    life: LifeSettings = LifeSettings()
    local_socket: bool = True
    multiplex: bool = True
    commit_ms: Count = 800
    max_body_mb: Positive = 64


class Clamps(msgspec.Struct, frozen=True):
    """The two reserved clamps from the environment; None does not clamp."""

    max_prompt_tokens: int | None = None
    min_free_vram_mb: int | None = None


def clamps(environ: Mapping[str, str]) -> Clamps:
    """Read the reserved clamps.

    Raises:
        SettingsError: A value is not a whole number.
    """
    return Clamps(_whole(environ, MAX_PROMPT_TOKENS), _whole(environ, MIN_FREE_VRAM_MB))


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise SettingsError(f"{name}={text!r} is not a whole number (tokens or MiB)")
    return int(text)


def bind_host(settings: NeuronSettings, secret: Secret | None) -> str:
    """Without a secret the node is reachable from this machine only, whatever the file says."""
    if secret is None:
        return LOOPBACK
    return settings.host or EVERYWHERE


SOCKET = "neuron.sock"
"""In the state directory, for gateways on this machine."""


def state_dir(settings: NeuronSettings, environ: Mapping[str, str]) -> Path:
    """Where the node keeps its files: the setting, systemd's choice, or the user's directory."""
    if settings.state_dir is not None:
        return settings.state_dir
    given = environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.split(":")[0])
    return user_folder("XDG_STATE_HOME", ".local/state", environ) / "helexa" / "neuron"
