"""``helexa neuron`` with the fake engine in llama.cpp's place, so that loads take time.

Everything of the node is real, the plan and its refusals too; the engine takes the knobs of
``FakeConfig`` from ``[engines.llamacpp] extra`` (``start_s``, ``prefill_tok_s``,
``decode_tok_s``), so that loading, prefill and decode cost time and no processor.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from helexa.neuron.engines.fake.engine import FakeEngine


class Slow(FakeEngine):
    """The fake engine under the name that catalogues ask for."""

    name = "llamacpp"

    def __init__(self, environ: Mapping[str, str], *_: object, **__: object) -> None:
        super().__init__(environ)


def main() -> None:
    """Be the node; the arguments are those of ``helexa neuron``."""
    from helexa.cli import main as helexa  # noqa: PLC0415 - the seam below comes first
    from helexa.neuron.build import engines  # noqa: PLC0415

    setattr(engines, "LlamaCpp", Slow)  # noqa: B010 - the one seam: it names it, we replace it
    sys.argv[1:1] = ["neuron"]
    helexa()


if __name__ == "__main__":
    main()
