"""The doctor's visit: this host and every engine that its ``neuron.toml`` gives it.

llama.cpp comes with helexa and is always looked at; vLLM and the operator's own commands where
they are found or named. What was named and cannot work is a problem, what is merely not there a
note.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from helexa import spark
from helexa.core.settings import SettingsError
from helexa.neuron.build.engines import harnesses
from helexa.neuron.build.socket_check import check_socket
from helexa.neuron.doctor import DoctorReport, EngineFinding, report
from helexa.neuron.engines.base import Host, Verdict
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.llamacpp.build import (
    LlamaCppBuild,
    build_for_this_machine,
    inspect_build,
    installed_version,
    unused,
)
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.vllm.build import PYTHON_VARIABLE, find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.hardware import Hardware
from helexa.neuron.hardware.driver import Fault
from helexa.neuron.models.inspect import inspect
from helexa.neuron.settings import CommandSettings, NeuronSettings

_OWN_ENVIRONMENT = "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm"


def check_up(settings: NeuronSettings, environ: Mapping[str, str]) -> DoctorReport:
    """Look at this host; starts nothing but a process per engine that says what it is."""
    hardware = Hardware.of_this_host(environ, harnesses=harnesses(settings, environ))
    try:
        host = hardware.host()
        findings = [
            _llamacpp(settings, environ, host, hardware.cpu.instruction_sets),
            _vllm(settings, environ, host),
            *(_command(name, one, environ) for name, one in settings.engines.command.items()),
        ]
        running, fault = check_socket(settings, environ)
        return report(
            hardware,
            findings,
            cpu_only=settings.engines.llamacpp.gpu_layers == 0,
            node=running,
            others=() if fault is None else (fault,),
        )
    finally:
        hardware.stop()


def _llamacpp(
    settings: NeuronSettings,
    environ: Mapping[str, str],
    host: Host,
    instruction_sets: tuple[str, ...],
) -> EngineFinding:
    build = inspect_build(environ)
    engine = LlamaCpp(environ, build, cpu_only=settings.engines.llamacpp.gpu_layers == 0)
    verdict = engine.can_run(inspect(spark.gguf_path(), spark.MODEL_ID), host)
    return EngineFinding(
        engine.name,
        engine.version(),
        built_for=build.devices,
        features=build.features,
        runs="GGUF files",
        verdict=verdict,
        # Where GPUs compute, the CPU's instructions matter little.
        advice=None if build.gpu else _own_build(build, instruction_sets),
    )


def _own_build(build: LlamaCppBuild, instruction_sets: tuple[str, ...]) -> Fault | None:
    """A wheel is built for most machines; a build for this one may use more of its CPU."""
    missed, version = unused(build.features, instruction_sets), installed_version()
    if not missed or version is None:
        return None
    return Fault(
        f"llamacpp: this CPU has {', '.join(missed)}, which the installed build does not use; one "
        "made here reads prompts faster. It needs a C++ compiler, cmake and ten minutes.",
        build_for_this_machine(version),
        blocking=False,
    )


def _vllm(settings: NeuronSettings, environ: Mapping[str, str], host: Host) -> EngineFinding:
    setting = settings.engines.vllm.python
    build = find_build(setting, environ)
    named = str(setting) if setting is not None else environ.get(PYTHON_VARIABLE)
    if build is not None:
        engine = Vllm(environ, build, settings.engines.vllm.args)
        verdict = engine.can_run(inspect(spark.safetensors_dir(), spark.MODEL_ID), host)
    elif named:
        where = PYTHON_VARIABLE if setting is None else "engines.vllm.python"
        verdict = _missing(
            f"{where} names {named}, which has no vLLM", f"{named} -m pip install vllm"
        )
    else:
        verdict = _missing("safetensors folders need it", _OWN_ENVIRONMENT)
    return EngineFinding(
        Vllm.name,
        None if build is None else build.version,
        built_for=() if build is None else ("CPU",) if build.cpu else ("GPU",),
        program="" if build is None else build.python,
        runs="safetensors folders",
        wanted=build is not None or bool(named),
        verdict=verdict,
    )


def _command(name: str, settings: CommandSettings, environ: Mapping[str, str]) -> EngineFinding:
    runs = ", ".join(settings.models) or "every model that no other engine takes"
    try:
        CommandEngine(name, settings, environ)
    except SettingsError as error:
        verdict = _missing(str(error), f"a change to [engines.command.{name}] in neuron.toml")
        return EngineFinding(name, None, runs=runs, verdict=verdict)
    program, verdict = settings.command[0], Verdict(True)
    found: str | None = program
    if "{" not in program:  # a place, which a load fills
        found = shutil.which(program, path=settings.env.get("PATH", environ.get("PATH")))
    if found is None:
        fix = f"install it, or name it by its path in engines.command.{name}.command"
        verdict = _missing(f"there is no program {program}", fix)
    return EngineFinding(name, None, program=found or program, runs=runs, verdict=verdict)


def _missing(what: str, fix: str) -> Verdict:
    return Verdict(False, "engine_not_installed", f"{what}; run: {fix}")
