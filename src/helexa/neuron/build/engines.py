"""Which engines a node has, and what the operator set for each.

Another engine is one entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.core.fleet import LoadRequest
from helexa.core.settings import SettingsError
from helexa.neuron.engines.base import Engine
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.llamacpp.build import LlamaCppBuild, inspect_build, installed_version
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.vllm.build import find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.hardware import Hardware
from helexa.neuron.settings import LlamaCppSettings, NeuronSettings

BUILT_IN = (LlamaCpp.name, Vllm.name)


def harnesses(settings: NeuronSettings, environ: Mapping[str, str]) -> list[str]:
    """What this node can run models with: what is installed, and what was found."""
    llama = installed_version()
    vllm = find_build(settings.engines.vllm.python, environ)
    built_in = [(LlamaCpp.name, llama), (Vllm.name, vllm)]
    return [*(name for name, found in built_in if found is not None), *settings.engines.command]


def make_engines(
    settings: NeuronSettings, hardware: Hardware, environ: Mapping[str, str]
) -> dict[str, Engine]:
    """The engines by name.

    Raises:
        SettingsError: A command of the operator's cannot be used.
    """
    llama = LlamaCpp(
        environ,
        _llama_build(hardware, environ),
        cpu_only=settings.engines.llamacpp.gpu_layers == 0,
    )
    found = find_build(settings.engines.vllm.python, environ)
    vllm = Vllm(environ, found, settings.engines.vllm.args)
    built_in: dict[str, Engine] = {llama.name: llama, vllm.name: vllm}
    return built_in | command_engines(settings, environ)


def command_engines(settings: NeuronSettings, environ: Mapping[str, str]) -> dict[str, Engine]:
    """The operator's own; an unlisted model goes to one of them only by name.

    Raises:
        SettingsError: One of them cannot be used.
    """
    for name in set(settings.engines.command) & set(BUILT_IN):
        raise SettingsError(
            f"engines.command.{name} has the name of a built-in engine; give it another"
        )
    return {
        name: CommandEngine(name, section, environ)
        for name, section in settings.engines.command.items()
    }


def _llama_build(hardware: Hardware, environ: Mapping[str, str]) -> LlamaCppBuild | None:
    """What the wheel was built for only matters where there is a GPU; asking takes a moment."""
    gpus = [device for device in hardware.host().devices if device.kind != "cpu"]
    return inspect_build(environ) if gpus else None


_FOR_ANY = ("slots", "ctx", "embeddings")


def _of_the_load(engine: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a load says about its engine, by the rules of ``[engines.llamacpp]``."""
    names = LlamaCppSettings.__struct_fields__ if engine == LlamaCpp.name else _FOR_ANY
    for name in given:
        if name not in names:
            raise InvalidRequestBody(
                f"`engine.{name}` is not a setting of {engine} for one model; there are "
                f"{', '.join(names)}.",
                param=f"engine.{name}",
            )
    try:
        settings = msgspec.convert(given, LlamaCppSettings)
    except msgspec.ValidationError as error:
        said = str(error).replace("`$.", "`engine.")
        raise InvalidRequestBody(f"{said}.", param="engine") from None
    return {name: getattr(settings, name) for name in given}


def wishes(settings: NeuronSettings, engine: str, spec: LoadRequest) -> dict[str, object]:
    """The operator's settings for ``engine`` and one load.

    Raises:
        InvalidRequestBody: The load names a setting that the engine does not have, or a wrong one.
    """
    wanted: dict[str, object] = {
        "devices": spec.devices,
        "max_devices": spec.tensor_parallel,
        "headroom_mb": settings.context_limit.activation_headroom_mb,
        "target_secs": settings.context_limit.target_prefill_latency_secs,
    }
    if engine == "llamacpp":
        llama = settings.engines.llamacpp
        wanted |= {name: getattr(llama, name) for name in llama.__struct_fields__}
        wanted["extra"] = llama.extra.given()
        wanted["cache_ram_mb"] = settings.prefix_cache.budget_mb
    elif engine == "vllm":
        wanted["cache_ram_mb"] = settings.prefix_cache.budget_mb
    if spec.engine:
        own = _of_the_load(engine, spec.engine)
        if "extra" in own:  # what it leaves open is the node's
            own["extra"] = settings.engines.llamacpp.extra.given() | own["extra"].given()
        wanted |= own
    return {name: value for name, value in wanted.items() if value is not None}
