"""``helexa neuron`` with the fake engine in llama.cpp's place, so that loads take time.

Everything of the node is real, the plan and its refusals too. A first argument in JSON are members
of ``FakeConfig`` (``start_s``, ``prefill_tok_s``, ``decode_tok_s``, ``hold_mb``) for every engine,
so that loading, prefill and decode cost time and no processor; the others are the command's::

    slow_neuron.py '{"start_s": 1.0}' --config neuron.toml
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from kit.seam import be_neuron_with
from msgspec.structs import replace

from helexa.neuron.engines.base import Launch, Plan
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.models.facts import ModelFacts


class Slow(FakeEngine):
    """The fake engine under the name that catalogues ask for."""

    name = "llamacpp"
    knobs: ClassVar[dict[str, Any]] = {}

    def __init__(self, environ: Mapping[str, str], *_: object, **__: object) -> None:
        super().__init__(environ)

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """As the fake engine's, with the knobs."""
        return super().launch(facts, replace(plan, extra={**plan.extra, **self.knobs}), model_id)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        Slow.knobs = json.loads(sys.argv.pop(1))
    be_neuron_with(Slow)
