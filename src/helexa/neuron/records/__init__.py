"""What every request has cost so far, in a file that survives ``kill -9`` exactly.

::

    open ──▶ queued ─▶ prefill ─▶ decode ──▶ complete · cut · cancelled · failed ──ack──▶ gone
                 └──────── the node dies ────────▶ node_lost (next life) ────────ack──▶ gone

One small record per request in a memory-mapped file. An update is a copy into memory and a byte
that makes it valid, about a microsecond, so it is made at every event. The kernel keeps the pages
whatever happens to the process; ``sync`` bounds what a power cut may lose. Nothing here knows
HTTP or an engine.
"""

from helexa.neuron.records.table import RecordTable, Row

__all__ = ["RecordTable", "Row"]
