"""Wires the gateway: the only room that names concrete classes.

::

    settings ─▶ parts ─▶ rooms ─▶ front ─▶ listen ─▶ ready line ─▶ serve ─▶ SIGTERM ─▶ drain
                           │
                           └─ ledger, nodes, residency, exchange

``parts`` is what everything else is made with, ``rooms`` joins what the files under it make,
``front`` is what clients meet, and ``serve`` is the life of it all. Nothing outside this room but
the command line may import it.
"""

from helexa.cortex.build.gateway import Gateway, assemble
from helexa.cortex.build.serve import run

__all__ = ["Gateway", "assemble", "run"]
