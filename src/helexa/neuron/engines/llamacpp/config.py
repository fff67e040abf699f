"""What the node tells the child process: every setting, decided before anything is started."""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["chat", "rerank"]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one llama.cpp server; names on the right are its own.

    Args:
        context: Cells of one slot; ``n_ctx`` is ``cells``.
        uds: Name of a Unix socket in the abstract namespace to listen on; None is a port of the
            loopback.
        threads_http: Connections served at once; each is a mostly sleeping thread.
        poll: Share of time a waiting thread spins, 0..100 (builds without OpenMP).
        prefill_batch: ``n_batch`` = ``n_ubatch``: tokens between two looks at the queue.
        pooling: None leaves the model's own.
        image_max_tokens: Larger pictures are made smaller; 0 leaves the model's own bound.
    """

    path: str
    alias: str
    api_key: str
    cells: int
    slots: int
    uds: str | None = None
    unified: bool = True
    kv_type: str = "f16"
    threads: int = 1
    threads_batch: int = 1
    threads_http: int = 16
    poll: int = 0
    prefill_batch: int = 512
    cache_ram_mb: int = 0
    gpu_layers: int = 0
    main_gpu: int = 0
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    flash_attention: str = "auto"
    embeddings: bool = False
    pooling: str | None = None
    rerank: bool = False
    mmproj: str | None = None
    image_max_tokens: int = 0
    mlock: bool = False
    verbosity: int = 2
