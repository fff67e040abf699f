"""NVIDIA devices through NVML. Its Python binding is optional and imported when first needed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from helexa.core.fleet import Device, DeviceReading

MIB = 1 << 20
_BINDING = "pynvml"


class NvmlState(msgspec.Struct, frozen=True):
    """What NVML says of itself.

    Args:
        error: Its own words when it does not work.
        lost: Devices that it counts and cannot reach, in its words.
    """

    driver: str | None = None
    cuda: str | None = None
    error: str | None = None
    lost: tuple[str, ...] = ()


class Nvidia:
    """The devices this process may use, numbered as CUDA numbers them.

    Args:
        nvml: The ``pynvml`` module or something like it; None imports it.
        visible: ``CUDA_VISIBLE_DEVICES``: indices or UUIDs; None is all.

    Attributes:
        silent: Devices that did not tell their memory at the last look, and why.
    """

    def __init__(self, nvml: Any = None, visible: str | None = None) -> None:
        self._nvml = nvml
        self._visible = visible
        self._handles: list[Any] = []
        self.state = NvmlState()
        self.silent: dict[int, str] = {}

    @property
    def present(self) -> bool:
        """Whether there is at least one usable device."""
        return bool(self._handles)

    def open(self) -> list[Device]:
        """Connect and list the devices; empty, with ``state.error``, when that fails.

        A device that has fallen off the bus is left out, as CUDA leaves it out. One whose memory
        is not told (``vram_total_mb`` 0) shares the host's.
        """
        try:
            self._nvml = self._nvml or importlib.import_module(_BINDING)
        except ImportError:
            self.state = NvmlState(error="nvidia-ml-py is not installed")
            return []
        try:
            self._nvml.nvmlInit()
            handles, lost = self._reached()
            self._handles = self._chosen(handles)
            self.state = NvmlState(
                _text(self._nvml.nvmlSystemGetDriverVersion()),
                _cuda(self._nvml.nvmlSystemGetCudaDriverVersion()),
                "; ".join(lost) if lost and not handles else None,
                lost,
            )
            return [self._device(n, handle) for n, handle in enumerate(self._handles)]
        except self._nvml.NVMLError as error:
            self._handles = []
            self.state = NvmlState(error=str(error))
            return []

    def readings(self) -> list[DeviceReading]:
        """Memory, utilisation and temperature now (may block on a busy driver)."""
        return [self._reading(n, handle) for n, handle in enumerate(self._handles)]

    def used_by(self, pids: Sequence[int]) -> dict[int, int]:
        """MiB that the processes ``pids`` hold, per device; a device they do not use is absent."""
        used: dict[int, int] = {}
        for n, handle in enumerate(self._handles):
            with contextlib.suppress(self._nvml.NVMLError):
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    if process.pid in pids and process.usedGpuMemory:
                        used[n] = used.get(n, 0) + process.usedGpuMemory // MIB
        return used

    def close(self) -> None:
        """Let go of the library."""
        if self._handles:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._handles = []

    def _reached(self) -> tuple[list[Any], tuple[str, ...]]:
        """The devices that can be spoken to, and words for the others."""
        handles, lost = [], []
        for n in range(self._nvml.nvmlDeviceGetCount()):
            try:
                handles.append(self._nvml.nvmlDeviceGetHandleByIndex(n))
            except self._nvml.NVMLError as error:
                lost.append(f"GPU {n}: {error}")
        return handles, tuple(lost)

    def _chosen(self, handles: list[Any]) -> list[Any]:
        if self._visible is None:
            return handles
        by_name: dict[str, Any] = {str(n): handle for n, handle in enumerate(handles)}
        by_name |= {_text(self._nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
        chosen = []
        for name in filter(None, (part.strip() for part in self._visible.split(","))):
            match = next((h for known, h in by_name.items() if _names(known, name)), None)
            if match is None:
                break  # CUDA ignores everything from the first unknown name on
            chosen.append(match)
        return chosen

    def _device(self, index: int, handle: Any) -> Device:
        capability = self._ask("nvmlDeviceGetCudaComputeCapability", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return Device(
            index=index,
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            vram_total_mb=memory.total // MIB if memory else 0,
            compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
            kind="cuda",
        )

    def _reading(self, index: int, handle: Any) -> DeviceReading:
        memory = self._memory(index, handle)
        busy = self._ask("nvmlDeviceGetUtilizationRates", handle)
        heat = self._ask("nvmlDeviceGetTemperature", handle, 0)
        return DeviceReading(
            index=index,
            vram_used_mb=memory.used // MIB if memory else 0,
            vram_free_mb=memory.free // MIB if memory else 0,
            utilization_pct=float(busy.gpu) if busy else None,
            temp_c=float(heat) if heat is not None else None,
        )

    def _memory(self, index: int, handle: Any) -> Any:
        """Its memory; None, and ``silent``, when it does not tell it."""
        try:
            found = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except self._nvml.NVMLError as error:
            self.silent[index] = str(error)
            return None
        self.silent.pop(index, None)
        return found

    def _ask(self, name: str, *args: Any) -> Any:
        """What a device does not support is None, not an error."""
        try:
            return getattr(self._nvml, name)(*args)
        except self._nvml.NVMLError:
            return None


def visible_from(environ: Mapping[str, str]) -> str | None:
    """``CUDA_VISIBLE_DEVICES``; None when it is not set."""
    return environ.get("CUDA_VISIBLE_DEVICES")


def _names(known: str, name: str) -> bool:
    """An index names itself; of a UUID the beginning is enough."""
    return known == name or (name.startswith("GPU-") and known.startswith(name))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cuda(version: int) -> str:
    """12040 is 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"
