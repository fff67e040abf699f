"""What the installed llama.cpp was built for, asked of a process of its own.

Importing the library costs a hundred megabytes and, in GPU builds, a context on every device;
the node does neither.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

_TIMEOUT_S = 60.0
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
