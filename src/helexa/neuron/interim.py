"""Simple stand-ins until admission, records and hardware are here; nothing else may use them."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass

from helexa.core.fleet import Device, DeviceReading, Discovery, RequestRecord
from helexa.neuron.engines.base import Host


@dataclass(slots=True)
class InterimRow:
    table: dict[tuple[str, int], RequestRecord]
    key: tuple[str, int]

    def write(self, record: RequestRecord) -> None:
        self.table[self.key] = record

    def forget(self) -> None:
        self.table.pop(self.key, None)


class InterimRecords:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], RequestRecord] = {}

    def open(self, record: RequestRecord) -> InterimRow:
        key = (record.request_id, record.attempt)
        self.rows[key] = record
        return InterimRow(self.rows, key)

    def snapshot(self) -> list[RequestRecord]:
        return list(self.rows.values())

    def acknowledge(self, request_id: str, attempt: int) -> bool:
        return self.rows.pop((request_id, attempt), None) is not None


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
