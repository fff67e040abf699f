"""llama.cpp's own server as a program, the way an operator's command starts one.

It is kept from looking for thoughts and calls itself: its template lists tools, and shows no call
whose form it could learn.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import xllamacpp as lib


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--alias", "--key-file", "--template"):
        parser.add_argument(name, required=True)
    for name in ("--port", "--context", "--slots"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--embeddings", action="store_true")
    given = parser.parse_args()
    params = lib.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.hostnames, params.port = ["127.0.0.1"], given.port
    params.api_keys = [Path(given.key_file).read_text().strip()]
    params.n_ctx, params.n_parallel, params.kv_unified = given.context, given.slots, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_batch = params.n_ubatch = 64
    params.use_jinja, params.fit_params, params.ui = True, False, False
    params.reasoning_format = lib.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.chat_template = Path(given.template).read_text()
    if given.embeddings:
        params.embedding = True
        params.pooling_type = lib.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = lib.Server(params)
    print("listening on", server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sys.exit(0)


if __name__ == "__main__":
    main()
