"""``helexa neuron`` with the fake engine in llama.cpp's place, so that loads take time.

Everything of the node is real, the plan and its refusals too; the engine takes the knobs of
``FakeConfig`` from ``[engines.llamacpp] extra`` (``start_s``, ``prefill_tok_s``,
``decode_tok_s``), so that loading, prefill and decode cost time and no processor.
"""

from __future__ import annotations

from collections.abc import Mapping

from kit.seam import be_neuron_with

from helexa.neuron.engines.fake.engine import FakeEngine


class Slow(FakeEngine):
    """The fake engine under the name that catalogues ask for."""

    name = "llamacpp"

    def __init__(self, environ: Mapping[str, str], *_: object, **__: object) -> None:
        super().__init__(environ)


if __name__ == "__main__":
    be_neuron_with(Slow)
