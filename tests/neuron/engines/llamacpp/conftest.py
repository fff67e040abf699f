"""A served model without a process, for what is pure."""

from __future__ import annotations

import pytest
from tests.neuron.engines.specimens import GGUF, served_by

from helexa.neuron.engines.base import Served
from helexa.neuron.models.facts import ModelFacts


@pytest.fixture
def facts() -> ModelFacts:
    return GGUF


@pytest.fixture
def served(facts: ModelFacts) -> Served:
    return served_by(facts)
