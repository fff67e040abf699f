"""The owner of everything read from the host: probed once, sampled every second, served cached.

A host without a usable GPU is one device of kind ``cpu`` whose memory is the host's, so that
"at least one device of so much memory" means the same on every host. On a GPU host the CPU is not
listed: nothing falls back to it unasked.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from helexa.core.fleet import Device, DeviceReading, Discovery
from helexa.neuron.engines.base import Host
from helexa.neuron.hardware.cpu import (
    Busy,
    Memory,
    allowed_processors,
    read_cpu,
    read_memory,
    usable_cores,
)
from helexa.neuron.hardware.driver import Fault, fault_of, read_driver
from helexa.neuron.hardware.nvidia import Nvidia, visible_from
from helexa.neuron.hardware.roots import Roots

INTERVAL_S = 1.0
_STOP_S = 2.0
_WHEN_LOST = "look at nvidia-smi and `dmesg | grep -i xid`, then reset the GPU or reboot"


class Hardware:
    """What the node knows about its host.

    Args:
        harnesses: Names of the installed engines, for ``Discovery``.
        max_prompt_tokens: The operator's clamp, for ``Discovery``.
        on_sample: Called in the sampling thread after every sample.
        budget_mb: Host memory that this node may fill with models; None is all of it.

    Attributes:
        held_mb: Host memory that the loaded models were given, counted against the budget; called
            in any thread.
    """

    def __init__(
        self,
        roots: Roots | None = None,
        nvidia: Nvidia | None = None,
        *,
        harnesses: Sequence[str] = (),
        max_prompt_tokens: int | None = None,
        interval_s: float = INTERVAL_S,
        allowed: Callable[[], int] = allowed_processors,
        on_sample: Callable[[], None] | None = None,
        budget_mb: int | None = None,
    ) -> None:
        self.held_mb: Callable[[], int] = lambda: 0
        self._budget_mb = budget_mb
        self._roots = roots or Roots()
        self._nvidia = nvidia or Nvidia()
        self._interval_s = interval_s
        self._on_sample = on_sample
        self._busy = Busy(self._roots)
        self._stopping = threading.Event()
        self._sampling = threading.Lock()
        self._thread: threading.Thread | None = None
        self._allowed = allowed
        self.cpu = read_cpu(self._roots, allowed)
        self.driver = read_driver(self._roots)
        self._memory = self._read_memory()
        found = self._nvidia.open()
        self._shared = frozenset(gpu.index for gpu in found if not gpu.vram_total_mb)
        self._gpus = [_of_host(gpu, self._memory) if self._shares(gpu) else gpu for gpu in found]
        self.fault = self._find_fault()
        self._discovery = self._describe(tuple(harnesses), max_prompt_tokens)
        self._host = self._sample()

    @classmethod
    def of_this_host(cls, environ: Mapping[str, str], *, harnesses: Sequence[str] = (),
                     max_prompt_tokens: int | None = None,
                     budget_mb: int | None = None) -> Hardware:  # fmt: skip
        """The real one. Probes once, which takes some 100 ms with a GPU driver."""
        return cls(
            nvidia=Nvidia(visible=visible_from(environ)),
            harnesses=harnesses,
            max_prompt_tokens=max_prompt_tokens,
            budget_mb=budget_mb,
        )

    def start(self) -> None:
        """Begin sampling in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="readings", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling; a driver call that hangs is left behind after two seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        if self._thread is None or not self._thread.is_alive():
            self._nvidia.close()

    def discovery(self) -> Discovery:
        """What the host is."""
        return self._discovery

    def host(self) -> Host:
        """The last sample, for plans."""
        return self._host

    def devices(self) -> list[DeviceReading]:
        """The last sample, for ``/health``."""
        return list(self._host.readings)

    def refresh(self) -> Host:
        """Sample now (blocking; call it in a thread): plans are not made on stale figures."""
        self._host = self._sample()
        return self._host

    def used_by(self, pids: Sequence[int]) -> dict[int, int]:
        """MiB of device memory that ``pids`` hold, per device (blocking)."""
        return self._nvidia.used_by(pids)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.refresh()
            if self._on_sample is not None:
                self._on_sample()

    def _sample(self) -> Host:
        with self._sampling:
            memory = self._read_memory()
            readings = self._readings(memory)
            fault = self.fault or self._silence()
            if self._discovery.cuda_unavailable_reason != (reason := fault and str(fault)):
                self._discovery = replace(self._discovery, cuda_unavailable_reason=reason)
        return Host(
            tuple(self._discovery.devices),
            tuple(readings),
            memory.total_mb,
            memory.free_mb,
            min(self.cpu.cores_total, usable_cores(self._roots, self._allowed)),
            str(fault) if fault and fault.blocking else None,
        )

    def _readings(self, memory: Memory) -> list[DeviceReading]:
        """Of the GPUs; those without memory of their own have the host's."""
        if not self._gpus:
            return [self._cpu_reading(memory)]
        used = max(0, memory.total_mb - memory.free_mb)
        return [
            replace(reading, vram_used_mb=used, vram_free_mb=memory.free_mb)
            if self._shares(reading)
            else reading
            for reading in self._nvidia.readings()
        ]

    def _shares(self, gpu: Device | DeviceReading) -> bool:
        return gpu.index in self._shared

    def _silence(self) -> Fault | None:
        """What is wrong with GPUs that answered once; None while all do, or do again."""
        silent = {n: why for n, why in self._nvidia.silent.items() if n not in self._shared}
        if not silent:
            return None
        words = "; ".join(f"GPU {n}: {why}" for n, why in sorted(silent.items()))
        return Fault(f"The NVIDIA driver has stopped answering ({words}).", _WHEN_LOST,
                     blocking=len(silent) == len(self._gpus))  # fmt: skip

    def _read_memory(self) -> Memory:
        """The host's memory, within the budget."""
        memory, budget = read_memory(self._roots), self._budget_mb
        if budget is None:
            return memory
        left = max(0, budget - self.held_mb())
        return Memory(min(memory.total_mb, budget), min(memory.free_mb, left))

    def _cpu_reading(self, memory: Memory) -> DeviceReading:
        return DeviceReading(
            index=0,
            vram_used_mb=max(0, memory.total_mb - memory.free_mb),
            vram_free_mb=memory.free_mb,
            utilization_pct=self._busy.percent(),
        )

    def _find_fault(self) -> Fault | None:
        """Versions first, because they say what is wrong; then NVML's own words."""
        fault, lost = fault_of(self.driver), self._nvidia.state.lost
        if fault is None and lost and self._gpus:
            words = "; ".join(lost)
            return Fault(f"Not all GPUs can be reached ({words}).", _WHEN_LOST, blocking=False)
        if fault is not None or self._gpus or not self.driver.module:
            return fault
        error = self._nvidia.state.error or "no device is visible"
        fix = "check CUDA_VISIBLE_DEVICES and nvidia-smi"
        if "not installed" in error:
            fix = "pip install 'helexa[neuron]'"
        return Fault(f"The NVIDIA driver is loaded and cannot be asked: {error}.", fix)

    def _describe(self, harnesses: tuple[str, ...], max_prompt_tokens: int | None) -> Discovery:
        cpu = Device(0, self.cpu.model, self._memory.total_mb, kind="cpu")
        return Discovery(
            hostname=socket.gethostname(),
            os=platform.system(),
            kernel=platform.release(),
            driver_version=self._nvidia.state.driver or self.driver.module,
            cuda_version=self._nvidia.state.cuda,
            devices=self._gpus or [cpu],
            harnesses=list(harnesses),
            cuda_unavailable_reason=str(self.fault) if self.fault else None,
            max_prompt_tokens=max_prompt_tokens,
        )


def _of_host(gpu: Device, memory: Memory) -> Device:
    """A GPU without memory of its own, such as the GB10 of a DGX Spark: NVML tells none."""
    return replace(gpu, vram_total_mb=memory.total_mb)


def resident_mb(pid: int, roots: Roots | None = None) -> int:
    """Resident memory of one process in MiB: anonymous pages and mapped files; 0 when it is gone.

    Mapped weights count: they are hot, and the model does not run without them.
    """
    try:
        pages = (roots or Roots()).proc.joinpath(str(pid), "statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") >> 20
