"""A whole node with another engine in llama.cpp's place."""

from __future__ import annotations

import sys


def be_neuron_with(engine: type) -> None:
    """Be ``helexa neuron``; the arguments are those of the command.

    Args:
        engine: What the node makes where it names llama.cpp's.
    """
    from helexa.cli import main as helexa  # noqa: PLC0415 - the seam below comes first
    from helexa.neuron.build import engines  # noqa: PLC0415

    setattr(engines, "LlamaCpp", engine)  # noqa: B010 - the one seam: it names it, we replace it
    sys.argv[1:1] = ["neuron"]
    helexa()
