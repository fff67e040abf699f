"""What a host could hold at all, whatever it holds now; pure."""

from __future__ import annotations

from msgspec.structs import replace

from helexa.neuron.engines.base import Host


def emptied(host: Host) -> Host:
    """The same host with nothing loaded: all memory is free."""
    totals = {device.index: device.vram_total_mb for device in host.devices}
    readings = tuple(
        replace(reading, vram_used_mb=0, vram_free_mb=totals.get(reading.index, 0))
        for reading in host.readings
    )
    return replace(host, readings=readings, memory_free_mb=host.memory_total_mb)
