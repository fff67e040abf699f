"""Hosts made of folders, and a driver library made of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from helexa.neuron.hardware.roots import Roots

CPUINFO = """\
processor\t: 0
model name\t: Test Processor 9000
flags\t\t: fpu sse4_2 avx avx2 fma f16c

processor\t: 1
model name\t: Test Processor 9000
flags\t\t: fpu sse4_2 avx avx2 fma f16c

processor\t: 2
model name\t: Test Processor 9000
flags\t\t: fpu

processor\t: 3
model name\t: Test Processor 9000
flags\t\t: fpu
"""
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\n"
VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Feb 22 01:44:30 UTC 2024\n"
    "GCC version:  gcc version 12.2.0\n"
)
OPEN_VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n"


@dataclass
class FakeHost:
    """A /proc, a /sys and library folders under one temporary folder."""

    root: Path

    @property
    def roots(self) -> Roots:
        return Roots(self.root / "proc", self.root / "sys", (self.root / "lib",))

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def module(self, version: str, form: str = VERSION) -> None:
        self.write("proc/driver/nvidia/version", form.format(version=version))

    def library(self, version: str) -> None:
        self.write(f"lib/libnvidia-ml.so.{version}", "")
        self.write("lib/libnvidia-ml.so.1", "")

    def pci_gpu(self) -> None:
        self.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
        self.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")


@pytest.fixture
def fake_host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.write("proc/cpuinfo", CPUINFO)
    host.write("proc/meminfo", MEMINFO)
    host.write("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\n")
    return host


class FakeNvmlError(Exception):
    pass


@dataclass
class FakeNvml:
    """The part of ``pynvml`` that is used; ``devices`` are (name, total MiB, used MiB)."""

    devices: list[tuple[str, int, int]]
    init_error: str | None = None
    without: set[str] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    processes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    NVMLError = FakeNvmlError

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error:
            raise FakeNvmlError(self.init_error)

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.devices = []

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.lost:
            raise FakeNvmlError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}aaa-bbb"

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.54.14"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 12040

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.devices[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        self._need("memory")
        if handle in self.lost:
            raise FakeNvmlError("GPU is lost")
        _, total, used = self.devices[handle]
        mib = 1 << 20
        return SimpleNamespace(total=total * mib, used=used * mib, free=(total - used) * mib)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        self._need("utilization")
        return SimpleNamespace(gpu=37, memory=10)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        self._need("temperature")
        return 61

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        self._need("capability")
        return 9, 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=used << 20)
            for pid, used in self.processes.get(handle, [])
        ]

    def _need(self, what: str) -> None:
        if what in self.without:
            raise FakeNvmlError("Not Supported")
