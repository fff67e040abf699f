"""``helexa neuron`` that also says where its engine answers, so that the two can be compared.

The node is the real one. When an engine is ready its address goes to the file named by
``HELEXA_ENGINE``: whoever reads it can ask the same process with and without the node before it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from kit.seam import be_neuron_with

from helexa.neuron.engines.base import Address
from helexa.neuron.engines.llamacpp.engine import LlamaCpp


class Open(LlamaCpp):
    """llama.cpp whose address is no secret."""

    async def ready(self, address: Address, model_id: str) -> None:
        """As before, and say where."""
        await super().ready(address, model_id)
        say(address)


def say(address: Address) -> None:
    """Write down where the engine answers, and with which key."""
    Path(os.environ["HELEXA_ENGINE"]).write_bytes(msgspec.json.encode(address))


if __name__ == "__main__":
    be_neuron_with(Open)
