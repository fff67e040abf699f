"""A safetensors model without files, for what is pure."""

from __future__ import annotations

import pytest
from tests.neuron.engines.specimens import LARGE

from helexa.neuron.models.facts import ModelFacts


@pytest.fixture
def facts() -> ModelFacts:
    return LARGE
