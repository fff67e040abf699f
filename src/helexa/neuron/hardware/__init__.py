"""What the host is and how it is doing: devices, memory, cores, drivers.

::

    /proc, /sys, cgroups ─┐
    NVML (if there is one) ├─▶ probe (once) ─▶ Discovery          what it is
    kernel and library     ┘   sample (1/s, own thread) ─▶ Host, readings   how it is doing

Requests and control-plane reads only ever see the last sample: a driver that hangs must not make
a node look dead. Every root and library is a parameter, so tests bring their own host. Nothing
here decides what runs where.
"""

from helexa.neuron.hardware.readings import Hardware

__all__ = ["Hardware"]
