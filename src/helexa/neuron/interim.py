"""Simple stand-ins until admission, records and hardware are here; nothing else may use them."""

from __future__ import annotations

import os
import platform
import socket
from helexa.core.fleet import Device, DeviceReading, Discovery
from helexa.neuron.engines.base import Host


class InterimHardware:
    def host(self) -> Host:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES")
        return Host((), (), pages * size >> 20, free * size >> 20, os.cpu_count() or 1)

    def discovery(self) -> Discovery:
        return Discovery(
            hostname=socket.gethostname(),
            os=platform.system(),
            kernel=platform.release(),
            devices=[Device(-1, "cpu", kind="cpu")],
            harnesses=["llamacpp"],
        )

    def devices(self) -> list[DeviceReading]:
        host = self.host()
        return [DeviceReading(-1, host.memory_total_mb - host.memory_free_mb, host.memory_free_mb)]
