"""What the installed llama.cpp was built for, asked of a process of its own.

Importing the library costs a hundred megabytes and, in GPU builds, a context on every device;
the node does neither.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

_TIMEOUT_S = 60.0
_SETS = {
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx_vnni": "AVX_VNNI",
    "amx_int8": "AMX_INT8",
}
"""What a wheel leaves out: the kernel's names, and the library's."""
_SCRIPT = """
import json, xllamacpp
devices = [str(d["name"]) for d in xllamacpp.get_device_info()]
print(json.dumps({"devices": devices, "features": str(xllamacpp.get_system_info())}))
"""


class LlamaCppBuild(msgspec.Struct, frozen=True):
    """``devices`` are the library's names (``CPU``, ``CUDA0``); ``features`` is its own line."""

    devices: tuple[str, ...] = ("CPU",)
    features: str = ""

    @property
    def gpu(self) -> bool:
        """Whether it can use any device but the CPU."""
        return any(not name.startswith(("CPU", "BLAS")) for name in self.devices)


def unused(features: str, instruction_sets: Iterable[str]) -> tuple[str, ...]:
    """Instruction sets that this CPU has and the library was built without; pure.

    Args:
        features: The library's own line (``CPU : AVX2 = 1 | FMA = 1 |``); empty if it told none.
        instruction_sets: Of this CPU, in the kernel's names.
    """
    used = {part.partition("=")[0].split(":")[-1].strip() for part in features.split("|")}
    known = (name for name in instruction_sets if name in _SETS)
    return tuple(name for name in known if _SETS[name] not in used) if features.strip() else ()


def build_for_this_machine(version: str) -> str:
    """The command that builds this version from its source for the machine that runs it.

    The library's grammar engine in Rust and its TLS are left out: helexa uses neither.
    """
    return (
        "CMAKE_ARGS='-DLLAMA_LLGUIDANCE=OFF -DLLAMA_BUILD_BORINGSSL=OFF' "
        f"pip install --force-reinstall --no-deps --no-binary xllamacpp xllamacpp=={version}"
    )


def installed_version() -> str | None:
    """Version of the installed wheel, None without one."""
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return None


def inspect_build(environ: Mapping[str, str]) -> LlamaCppBuild:
    """Ask the library (blocking, a fraction of a second; seconds where it wakes GPUs)."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=LlamaCppBuild)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError, IndexError):
        return LlamaCppBuild(devices=())
