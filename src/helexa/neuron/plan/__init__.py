"""Before loading: does it fit, on which devices, with how many cells.

::

    target = slots × wanted context ── room for all of it? ──yes──▶ plan
                                        │no
             the most cells that fit ≥ the least that is acceptable? ──yes──▶ plan
                                        │no
                                        ▼
             InsufficientVram: the figures, and the nearest thing that would fit

Pure: functions of the model's facts, one snapshot of the host and the operator's wishes. Nothing
here reads a file or asks a device.
"""

from helexa.neuron.plan.fit import fit
from helexa.neuron.plan.memory import MemoryEstimate, kv_bytes, predict_memory, tokens_in
from helexa.neuron.plan.wanted import HOST, Room, Wanted, room_of

__all__ = [
    "HOST",
    "MemoryEstimate",
    "Room",
    "Wanted",
    "fit",
    "kv_bytes",
    "predict_memory",
    "room_of",
    "tokens_in",
]
