"""What ``helexa up`` generates: settings of node and gateway, and the welcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"
MODEL = "helexa/spark"
_SCHEMES = ("hf", "file", "builtin")


class Own(NamedTuple):
    """A model of whoever starts the household: the id it is served under, and where it lies.

    Args:
        source: A path, or a name with its source; None is the id itself.
    """

    id: str
    source: str | None = None


def own_model(text: str) -> Own:
    """What ``helexa up MODEL`` names: a file or folder, ``org/name``, ``hf:org/name``.

    Raises:
        FileNotFoundError: It is a path, and nothing is there.
    """
    if text.startswith(("/", ".", "~")) or (text.endswith(".gguf") and ":" not in text):
        path = Path(text).expanduser().absolute()
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        return Own(path.stem if path.suffix == ".gguf" else path.name, str(path))
    scheme, colon, name = text.partition(":")
    return Own(name, text) if colon and scheme in _SCHEMES else Own(text)


class Places(NamedTuple):
    """Ports (0: any free one), where files go (None: chosen by port), the log level, and the
    models beside the built-in one."""

    port: int
    neuron_port: int
    metrics_port: int
    state_dir: Path | None
    log_level: str
    models: tuple[Own, ...] = ()

    @property
    def first(self) -> str:
        """The model that the welcome shows."""
        return self.models[0].id if self.models else MODEL


def neuron_toml(places: Places, state: Path) -> str:
    """Settings of the node: loopback, the built-in model at boot, then the others."""
    return (
        f"port = {places.neuron_port}\n"
        f"state_dir = {json.dumps(str(state / 'neuron'))}\n"
        + _tables("default_models", "model_id", places)
    )


def cortex_toml(places: Places, neuron_url: str, state: Path) -> str:
    """Settings of the gateway: loopback, one node."""
    from helexa.cortex.ledger.database import sqlite_url

    ledger = sqlite_url(state / "ledger.db")
    return (
        'models_config = "models.toml"\n'
        "[gateway]\n"
        f'listen = "{HOST}:{places.port}"\n'
        f'metrics_listen = "{HOST}:{places.metrics_port}"\n'
        f"[ledger]\nurl = {json.dumps(ledger)}\n"
        f'[[neurons]]\nname = "local"\nendpoint = {json.dumps(neuron_url)}\n'
    )


def models_toml(places: Places) -> str:
    """The catalogue: the same models, so that they are known also while they are not loaded."""
    return _tables("models", "id", places)


def _tables(table: str, key: str, places: Places) -> str:
    text = ""
    for model in (Own(MODEL), *places.models):
        text += f"[[{table}]]\n{key} = {json.dumps(model.id)}\n"
        if model.source is not None:
            text += f"source = {json.dumps(model.source)}\n"
    return text


def welcome(url: str, model: str, *, ready: bool) -> str:
    """How to point a client at a running household, and at which model.

    Args:
        ready: It is loaded.
    """
    waits = "" if ready else f"\n{model} is on its way; what asks for it waits until it is there."
    return (
        f"\nhelexa is up. Base URL: {url}/v1   model: {model}   key: any{waits}\n"
        f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=any\n"
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{model}", "messages": '
        '[{"role": "user", "content": "What is the capital of France?"}]}\'\n'
        "Ctrl-C stops it.\n"
    )
