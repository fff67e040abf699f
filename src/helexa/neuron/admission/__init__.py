"""Who may run on a model now, who waits, and who is refused.

::

    enter ─▶ can it ever fit? ─▶ seat and cells free, and its turn? ──yes──▶ Seat
                  │no: 400             │no: queue (bounded, fair, with a deadline)
                                       └─▶ seated later · refused 503 · gone

Seats go by deficit round robin over principals, counted in tokens and charged as they are
produced. KV cells are granted with the seat, never after it. ``Core`` decides, synchronously and
without a clock of its own; ``Admission`` is the thin owner that lets tasks wait. Nothing here
knows an engine, HTTP or a file.
"""

from helexa.neuron.admission.core import Core
from helexa.neuron.admission.owner import Admission, Seat
from helexa.neuron.admission.ticket import Standing, Ticket

__all__ = ["Admission", "Core", "Seat", "Standing", "Ticket"]
