"""``helexa neuron`` with an engine whose price does not count: for measuring both hops.

The node is the real one, engine process and all; only the program behind the engine protocol is
the fake engine, on the load generator's core. Started as ``--engine`` it is that program.
"""

from __future__ import annotations

import sys

import msgspec
import uvloop
from kit.process import LOAD_CORE, pinned

from helexa.neuron.engines.base import Launch, Plan
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.models.facts import ModelFacts


class Costless(FakeEngine):
    """The fake engine in llama.cpp's place."""

    name = "llamacpp"

    def __init__(self, environ: object, *_: object, **__: object) -> None:
        super().__init__(environ)  # type: ignore[arg-type]

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """This file, on the load generator's core."""
        launch = super().launch(facts, plan, model_id)
        command = [sys.executable, __file__, *launch.argv[3:]]
        return msgspec.structs.replace(launch, argv=tuple(pinned(LOAD_CORE, command)))


def engine() -> None:
    """Be the engine."""
    from helexa.neuron.engines.fake.__main__ import main  # noqa: PLC0415 - one of two roles

    uvloop.install()
    main()


def neuron() -> None:
    """Be the node."""
    from helexa.cli import main  # noqa: PLC0415
    from helexa.neuron import build  # noqa: PLC0415

    setattr(build, "LlamaCpp", Costless)  # noqa: B010 - another module's name, on purpose
    sys.argv[1:1] = ["neuron"]
    main()


if __name__ == "__main__":
    engine() if "--engine" in sys.argv else neuron()
