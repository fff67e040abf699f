"""The engine process: one xllamacpp server, its port reported, its life tied to the neuron's.

Run by the supervisor as ``python -m helexa.neuron.engines.llamacpp.child --engine llamacpp
--model NAME``; the arguments are for whoever reads ``ps``, the settings come in on stdin.
"""

from __future__ import annotations

import signal
from typing import Any
from urllib.parse import urlsplit

import msgspec

from helexa.neuron.engines import lifeline
from helexa.neuron.engines.llamacpp.config import ServerConfig


def common_params(config: ServerConfig) -> Any:
    """The library's parameters for ``config``; everything that listens or phones home is off."""
    import xllamacpp as lib  # noqa: PLC0415 - 100 MB that only this process pays for

    params = lib.CommonParams()
    params.model.path = config.path
    params.model_alias = {config.alias}
    # llama.cpp takes a name that ends so for a socket's path, and "@" for the abstract namespace
    params.hostnames = ["127.0.0.1" if config.uds is None else f"@{config.uds}.sock"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.cors_origins = ""
    params.n_threads_http = config.threads_http
    params.sse_ping_interval = -1
    params.ui = False
    params.offline = True
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.use_jinja = True
    params.fit_params = False
    params.verbosity = config.verbosity
    _set_memory(params, config, lib)
    _set_compute(params, config, lib)
    _set_pooling(params, config, lib)
    return params


def _set_memory(params: Any, config: ServerConfig, lib: Any) -> None:
    kv_type = getattr(lib.ggml_type, f"GGML_TYPE_{config.kv_type.upper()}")
    params.n_ctx = config.cells
    params.n_parallel = config.slots
    params.kv_unified = config.unified
    params.cache_type_k = params.cache_type_v = kv_type
    params.cache_ram_mib = config.cache_ram_mb
    params.n_batch = params.n_ubatch = config.prefill_batch
    if config.mlock:
        params.load_mode = lib.llama_load_mode.LLAMA_LOAD_MODE_MMAP_MLOCK


def _set_compute(params: Any, config: ServerConfig, lib: Any) -> None:
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads_batch
    params.cpuparams.poll = params.cpuparams_batch.poll = config.poll
    params.n_gpu_layers = config.gpu_layers
    params.main_gpu = config.main_gpu
    mode = f"LLAMA_SPLIT_MODE_{config.split_mode.upper()}"
    params.split_mode = getattr(lib.llama_split_mode, mode)
    if config.tensor_split:
        width = len(params.tensor_split)
        params.tensor_split = [*config.tensor_split, *[0.0] * width][:width]
    flash = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}[config.flash_attention]
    params.flash_attn_type = getattr(lib.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{flash}")


def _set_pooling(params: Any, config: ServerConfig, lib: Any) -> None:
    params.embedding = config.embeddings or config.rerank
    pooling = "rank" if config.rerank else config.pooling
    if pooling:
        name = f"LLAMA_POOLING_TYPE_{pooling.upper()}"
        params.pooling_type = getattr(lib.llama_pooling_type, name)
    if config.mmproj:
        params.mmproj.path = config.mmproj
        params.mmproj_use_gpu = config.gpu_layers > 0
        if config.image_max_tokens:
            params.image_max_tokens = config.image_max_tokens


def main() -> None:
    """Load, report, and wait for the end."""
    report = lifeline.Report()
    config = msgspec.convert(lifeline.receive(), ServerConfig)
    lifeline.watch()
    try:
        import xllamacpp  # noqa: PLC0415

        server = xllamacpp.Server(common_params(config))
        if config.uds is None:
            where: dict[str, object] = {"port": urlsplit(server.listening_address).port}
        else:
            where = {"uds": f"\0{config.uds}.sock"}
    except Exception as error:  # whatever it was, the neuron has to hear of it
        # A load that fails raises RuntimeError without the reason, which is in the log.
        why = "" if isinstance(error, RuntimeError) else f": {error}"
        report.send({"error": f"llama.cpp could not load the model{why}"})
        raise SystemExit(3) from error
    report.send(where)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
