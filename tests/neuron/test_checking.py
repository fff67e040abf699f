"""What ``helexa neuron --check`` says beside whether a node would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helexa.core.settings import convert
from helexa.neuron.build.checking import check
from helexa.neuron.settings import NeuronSettings


def doubts(tmp_path: Path, **settings: Any) -> list[str]:
    table = {"state_dir": str(tmp_path), **settings}
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    return check(convert(table, NeuronSettings, "neuron.toml"), environ)[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"default_models": [{"model_id": "helexa/spark", "harness": "lamacpp"}]},
            "default_models[0].harness: there is no engine 'lamacpp'; did you mean 'llamacpp'?",
        ),
        (
            {"engines": {"vllm": {"python": "/no/python"}}},
            "engines.vllm.python: there is no program '/no/python'",
        ),
        (
            {"engines": {"command": {"mine": {"command": ["no-such-server", "{port}"]}}}},
            "engines.command.mine.command: there is no program 'no-such-server'",
        ),
    ],
)
def test_a_check_doubts_what_would_only_fail_at_a_load(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert doubts(tmp_path, **settings) == [words]


def test_a_check_doubts_no_program_that_is_there_or_is_looked_for_elsewhere(
    tmp_path: Path,
) -> None:
    for program in ("sh", "/bin/sh", "./serve", "{model}"):
        command = {"mine": {"command": [program, "{port}"]}}
        assert doubts(tmp_path, engines={"command": command}) == []
