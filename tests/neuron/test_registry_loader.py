"""Which engine loads a model, and what earlier loads taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from helexa import spark
from helexa.core.errors import InvalidRequestBody, ServiceUnavailable
from helexa.neuron.engines.base import Engine, Host, Verdict
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.registry.experience import MOST, Experience, Lesson
from helexa.neuron.registry.loader import choose

HOST = Host((), (), 8192, 4096, 2)


@dataclass
class Picky:
    """An engine with an opinion."""

    name: str
    verdict: Verdict

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        return self.verdict


def engines(**verdicts: Verdict) -> Mapping[str, Engine]:
    found = {name: Picky(name, verdict) for name, verdict in verdicts.items()}
    return cast("dict[str, Engine]", found)


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return inspect(spark.gguf_path(), spark.MODEL_ID)


def test_the_first_engine_that_can_run_a_model_loads_it(facts: ModelFacts) -> None:
    known = engines(a=Verdict(False, "unsupported_format"), b=Verdict(True), c=Verdict(True))
    assert choose(known, None, facts, HOST).name == "b"


def test_an_engine_that_is_asked_for_is_taken_or_says_why_not(facts: ModelFacts) -> None:
    known = engines(a=Verdict(False, "engine_without_gpu", "built for the CPU"), b=Verdict(True))
    assert choose(known, "b", facts, HOST).name == "b"
    with pytest.raises(ServiceUnavailable, match="a: built for the CPU"):
        choose(known, "a", facts, HOST)


def test_when_no_engine_can_every_reason_is_given(facts: ModelFacts) -> None:
    known = engines(a=Verdict(False, "x", "too old"), b=Verdict(False, "unsupported_format"))
    with pytest.raises(ServiceUnavailable, match="a: too old; b: unsupported_format"):
        choose(known, None, facts, HOST)


def test_an_engine_that_does_not_exist_is_a_wrong_request(facts: ModelFacts) -> None:
    with pytest.raises(InvalidRequestBody, match="it has a") as refused:
        choose(engines(a=Verdict(True)), "warp", facts, HOST)
    assert refused.value.param == "harness"


def test_lessons_are_remembered_by_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "experience.json"
    Experience(path).learn("m", correction=1.2, load_secs=3.0)
    Experience(path).learn("m", prefill_tok_s=900.0)
    assert Experience(path).of("m") == Lesson(1.2, 3.0, 900.0)
    assert Experience(path).of("other") == Lesson()


def test_a_damaged_file_of_lessons_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "experience.json"
    path.write_bytes(b"{broken")
    lessons = Experience(path)
    assert lessons.of("m") == Lesson()
    lessons.learn("m", load_secs=1.0)
    assert Experience(path).of("m").load_secs == 1.0


def test_lessons_are_bounded_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    lessons = Experience(tmp_path / "experience.json")
    for number in range(MOST + 3):
        lessons.learn(f"m{number}", load_secs=float(number))
    assert lessons.of("m0") == Lesson()
    assert lessons.of("m3").load_secs == 3.0


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_lesson(tmp_path: Path) -> None:
    lessons = Experience(tmp_path / "missing" / "experience.json")
    lessons.learn("m", load_secs=1.0)
    assert lessons.of("m").load_secs == 1.0
