"""What ``helexa up`` generates: settings of node and gateway, and the welcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"
MODEL = "helexa/spark"


class Places(NamedTuple):
    """Ports (0: any free one), where files go (None: chosen by port), and the log level."""

    port: int
    neuron_port: int
    metrics_port: int
    state_dir: Path | None
    log_level: str


def neuron_toml(places: Places, state: Path) -> str:
    """Settings of the node: loopback, the built-in model at boot."""
    return (
        f"port = {places.neuron_port}\n"
        f"state_dir = {json.dumps(str(state / 'neuron'))}\n"
        f"[[default_models]]\nmodel_id = {json.dumps(MODEL)}\n"
    )


def cortex_toml(places: Places, neuron_url: str, state: Path) -> str:
    """Settings of the gateway: loopback, one node."""
    ledger = f"sqlite://{state / 'ledger.db'}"
    return (
        'models_config = "models.toml"\n'
        "[gateway]\n"
        f'listen = "{HOST}:{places.port}"\n'
        f'metrics_listen = "{HOST}:{places.metrics_port}"\n'
        f"[ledger]\nurl = {json.dumps(ledger)}\n"
        f'[[neurons]]\nname = "local"\nendpoint = {json.dumps(neuron_url)}\n'
    )


def models_toml() -> str:
    """The catalogue: the built-in model, so that it is known also while it is not loaded."""
    return f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\n'


def welcome(url: str) -> str:
    """How to point a client at a running household."""
    return (
        f"\nhelexa is up. Base URL: {url}/v1   model: {MODEL}   key: any\n"
        f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{MODEL}", "messages": '
        '[{"role": "user", "content": "What is the capital of France?"}]}\'\n'
        "Ctrl-C stops it.\n"
    )
