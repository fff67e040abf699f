"""Where a node's model files come from: the package, this machine's disks, hubs.

Another source is one entry here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from helexa import spark
from helexa.core.folders import user_folder
from helexa.core.logging import Logger
from helexa.core.settings import SettingsError
from helexa.neuron.settings import NeuronSettings, SourceSettings
from helexa.neuron.sources.base import Source
from helexa.neuron.sources.builtin import BUILT_IN, BuiltIn
from helexa.neuron.sources.hub.api import HubApi
from helexa.neuron.sources.hub.cache import Cache
from helexa.neuron.sources.hub.hub import Hub
from helexa.neuron.sources.local import LocalFiles
from helexa.neuron.sources.sources import Sources

HF = "hf"
HF_ENDPOINT = "https://huggingface.co"
HF_TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
_TRUE = frozenset({"1", "on", "yes", "true"})


def make_sources(settings: NeuronSettings, log: Logger, environ: Mapping[str, str]) -> Sources:
    """The sources by scheme: built-in models, files, Hugging Face, and what the file names.

    Raises:
        SettingsError: A scheme has no endpoint, or ``default_source`` is none of them.
    """
    known: dict[str, Source] = {
        BUILT_IN: BuiltIn(
            {spark.MODEL_ID: spark.gguf_path()}, {spark.MODEL_ID: spark.safetensors_dir()}
        ),
        "file": LocalFiles(),
    }
    for scheme, given in ({HF: SourceSettings()} | settings.sources).items():
        known[scheme] = _source(scheme, given, log, environ)
    default = settings.default_source or HF
    if default not in known:
        raise SettingsError(
            f"default_source {default!r} is none of {', '.join(known)}; add [sources.{default}]"
        )
    return Sources(known, default)


def _source(scheme: str, given: SourceSettings, log: Logger, environ: Mapping[str, str]) -> Source:
    endpoint = given.endpoint
    if endpoint is None and scheme == HF:
        endpoint = environ.get("HF_ENDPOINT") or HF_ENDPOINT
    if not endpoint:
        raise SettingsError(f"sources.{scheme}.endpoint is missing: the URL of a hub, or a folder")
    if not endpoint.startswith(("http://", "https://")):
        return LocalFiles((_folder(scheme, endpoint),))
    variable = given.auth_env or (HF_TOKEN if scheme == HF else f"{scheme.upper()}_TOKEN")
    return Hub(
        HubApi(scheme, endpoint, variable, _token(scheme, given, environ)),
        Cache(given.cache_dir.expanduser() if given.cache_dir else cache_dir(scheme, environ)),
        log,
        clock=time.monotonic,
        offline=environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
    )


def _folder(scheme: str, endpoint: str) -> Path:
    """A folder of models; one that is not there yet may be mounted later, if its path is whole."""
    folder = Path(endpoint.removeprefix("file://")).expanduser()
    hub = f"https://{endpoint.rpartition('://')[2]}"
    if not folder.is_absolute() and not folder.is_dir():
        raise SettingsError(
            f"sources.{scheme}.endpoint: {endpoint!r} is not a folder; write the URL of a hub, "
            f"such as {hub}, or the whole path of a folder"
        )
    return folder


def _token(
    scheme: str, given: SourceSettings, environ: Mapping[str, str]
) -> Callable[[], str | None]:
    """The token now: of the named variable; for Hugging Face also of ``hf auth login``."""

    def read() -> str | None:
        if given.auth_env:
            return environ.get(given.auth_env) or None
        if scheme != HF:
            return None
        from huggingface_hub import get_token  # noqa: PLC0415 - only who asks a hub has it

        return get_token()

    return read


def cache_dir(scheme: str, environ: Mapping[str, str]) -> Path:
    """Where a hub's files are kept unless the file says so: Hugging Face's own folder for it,
    so that its tools share them; a folder for each other hub, whose names may be the same."""
    for name, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if scheme == HF and environ.get(name):
            return Path(environ[name]).expanduser() / below
    service = environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if service:
        return Path(service) / scheme
    base = user_folder("XDG_CACHE_HOME", ".cache", environ)
    return base / "huggingface" / "hub" if scheme == HF else base / "helexa" / scheme
