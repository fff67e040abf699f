"""``helexa neuron --check``: would a node start with these settings? Nothing is started."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping

from helexa.core.logging import get_logger
from helexa.core.secret_files import open_to_others
from helexa.core.settings_keys import nearest
from helexa.neuron.build.engines import BUILT_IN, command_engines, harnesses
from helexa.neuron.build.sources import make_sources
from helexa.neuron.settings import NeuronSettings, bind_host, clamps


def check(settings: NeuronSettings, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """What they set up, in words, and what in them is hardly meant.

    Raises:
        SettingsError: What would stop a start: the settings, a secret, a command, a source.
    """
    clamps(environ)
    host = bind_host(settings, settings.fleet.resolve(environ))
    command_engines(settings, environ)
    make_sources(settings, get_logger(), environ)
    engines = ", ".join(harnesses(settings, environ)) or "none"
    count = len(settings.default_models)
    models = f"{count} {'model' if count == 1 else 'models'} at boot"
    doubts = (
        *_unknown_engines(settings),
        *_missing_programs(settings, environ.get("PATH")),
        *open_to_others({"fleet.secret_file": settings.fleet.secret_file}),
    )
    return f"listens on {host}, engines {engines}, {models}", list(doubts)


def _unknown_engines(settings: NeuronSettings) -> Iterable[str]:
    """Models that are to be loaded on an engine which nobody has named."""
    known = [*BUILT_IN, *settings.engines.command]
    for index, model in enumerate(settings.default_models):
        if model.harness is not None and model.harness not in known:
            close = nearest(model.harness, known)
            hint = f"did you mean {close!r}?" if close else f"there are {', '.join(known)}"
            yield f"default_models[{index}].harness: there is no engine {model.harness!r}; {hint}"


def _missing_programs(settings: NeuronSettings, path: str | None) -> Iterable[str]:
    """Programs that are not there; they may be put there before a model is loaded."""
    engines, wanted = settings.engines, []
    if engines.vllm.python is not None:
        wanted.append(("engines.vllm.python", str(engines.vllm.python), path))
    for name, own in engines.command.items():
        program = own.command[0]
        if "/" not in program or program.startswith("/"):  # else it is beside `cwd`
            where = own.env.get("PATH", path)
            wanted.append((f"engines.command.{name}.command", program, where))
    for setting, program, where in wanted:
        if "{" not in program and shutil.which(program, path=where) is None:
            yield f"{setting}: there is no program {program!r}"
