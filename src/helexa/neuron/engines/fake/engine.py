"""The fake engine behind the protocol; its HTTP is llama.cpp's, so its cleaning is too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import msgspec

from helexa.neuron.engines.base import Host, Launch, Plan, Verdict
from helexa.neuron.engines.environ import engine_environ
from helexa.neuron.engines.fake.server import FakeConfig
from helexa.neuron.engines.llamacpp.engine import LlamaCpp, new_key
from helexa.neuron.models.facts import ModelFacts


class FakeEngine(LlamaCpp):
    """Runs nothing, on anything. ``plan.extra`` may hold members of ``FakeConfig``.

    Args:
        faults: Fault of the next starts, taken one by one; None is a healthy start.
    """

    name = "fake"
    grammars = False  # it answers a schema with its least instance

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        faults: Callable[[], str | None] = lambda: None,
    ) -> None:
        super().__init__(environ)
        self._own_environ = environ
        self._faults = faults

    def version(self) -> str | None:
        """Always installed."""
        return "1"

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:  # noqa: ARG002
        """Everything."""
        return Verdict(True)

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:  # noqa: ARG002
        """The program of ``__main__``."""
        key = new_key()
        known = FakeConfig.__struct_fields__
        extra = {name: value for name, value in plan.extra.items() if name in known}
        given = {
            "alias": model_id,
            "api_key": key,
            "context": plan.context,
            "slots": plan.slots,
            "chunk": plan.batch,
            **extra,
        }
        fault = self._faults()
        if fault is not None:
            given["fault"] = fault
        config = msgspec.convert(given, FakeConfig)
        module = "helexa.neuron.engines.fake"
        return Launch(
            argv=(sys.executable, "-m", module, "--engine", self.name, "--model", model_id),
            env=engine_environ(self._own_environ),
            secret=msgspec.json.encode(config),
            api_key=key,
        )
