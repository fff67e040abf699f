"""NVIDIA's two halves, the kernel module and the user library, and whether they agree.

They must have the same version. After an update without a reboot they have not, every call fails
with a number, and this is the place that says so in words, with the command that mends it.
"""

from __future__ import annotations

import re

import msgspec

from helexa.neuron.hardware.roots import Roots, read_text

_MODULE = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)")
_LIBRARY = re.compile(r"^libnvidia-ml\.so\.(\d+\.\d+(?:\.\d+)?)$")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"

RELOAD = (
    "sudo systemctl stop neuron; sudo modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia "
    "&& sudo modprobe nvidia_uvm; sudo systemctl start neuron"
)
LOAD = "sudo modprobe nvidia_uvm"


class Driver(msgspec.Struct, frozen=True):
    """Versions found on disk and in the kernel; None is not there.

    Args:
        on_bus: There is an NVIDIA display device on the PCI bus.
    """

    module: str | None = None
    library: str | None = None
    on_bus: bool = False


class Fault(msgspec.Struct, frozen=True):
    """Why CUDA cannot be used: in words, and the exact command that mends it.

    ``blocking``: somebody set this host up to use its GPUs, so running on the CPU instead would
    be a silent fallback. A GPU that never had a driver does not block.
    """

    reason: str
    fix: str
    blocking: bool = True

    def __str__(self) -> str:
        return f"{self.reason} To fix it: {self.fix}"


def read_driver(roots: Roots) -> Driver:
    """Look at the kernel, the library folders and the bus; calls nothing."""
    stated = read_text(roots.proc / "driver" / "nvidia" / "version") or ""
    module = _MODULE.search(stated)
    return Driver(module[1] if module else None, _library(roots), _on_bus(roots))


def fault_of(driver: Driver) -> Fault | None:
    """What is wrong, as far as versions tell; None when nothing is, or there is no NVIDIA
    hardware to be wrong."""
    if driver.module and driver.library and driver.module != driver.library:
        return Fault(
            f"The NVIDIA kernel module is version {driver.module} and the user library is "
            f"{driver.library}; they must be the same. A driver update has not been completed.",
            f"{RELOAD} (or reboot)",
        )
    if driver.on_bus and not driver.module:
        known = "its library is installed" if driver.library else "no driver is installed"
        return Fault(
            f"An NVIDIA GPU is on the bus, its kernel module is not loaded and {known}.",
            LOAD if driver.library else "install NVIDIA's driver for this distribution, reboot",
            blocking=driver.library is not None,
        )
    if driver.module and not driver.library:
        return Fault(
            f"The NVIDIA kernel module {driver.module} is loaded, its user library "
            "(libnvidia-ml.so) is not installed here.",
            f"install the user libraries of driver {driver.module}; in a container, start it "
            "with the GPUs passed through (docker run --gpus all)",
        )
    return None


def _library(roots: Roots) -> str | None:
    versions = []
    for folder in roots.libraries:
        if folder.is_dir():
            versions += [
                m[1] for p in folder.glob("libnvidia-ml.so.*") if (m := _LIBRARY.match(p.name))
            ]
    return max(versions, key=lambda v: [int(part) for part in v.split(".")], default=None)


def _on_bus(roots: Roots) -> bool:
    for device in (roots.sys / "bus" / "pci" / "devices").glob("*"):
        vendor = (read_text(device / "vendor") or "").strip()
        kind = (read_text(device / "class") or "").strip()
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False
