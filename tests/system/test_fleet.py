"""Four nodes and a gateway as processes, under load: what one of them does to the others.

``benchmarks/fleet.py`` does it, here with few requests; ``make soak`` runs it with 10,000. One
run serves every test of this module.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fleet.py"


def end_tidily() -> None:
    """In the child: if the tests are killed, stop what was started."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By name: ``value``, ``bar``, ``verdict``, ``note``."""
    out = tmp_path_factory.mktemp("fleet") / "fleet.json"
    command = [sys.executable, str(BENCHMARK), "--requests", "300", "--seconds", "3"]
    log = out.with_suffix(".log")
    with log.open("wb") as said:
        ran = subprocess.Popen(
            [*command, "--json", str(out)],
            stdout=said,
            stderr=said,
            preexec_fn=end_tidily,  # noqa: PLW1509 - the tests' main thread starts it
        )
    try:
        ran.wait(230)
    finally:
        ran.terminate()  # its nodes end with it, whatever happens to us
        ran.wait(60)
    assert out.exists(), log.read_text()
    return {figure["name"]: figure for figure in json.loads(out.read_text())["figures"]}


def held_to_its_bar(figures: dict[str, dict[str, Any]], beginning: str) -> None:
    found = [figure for name, figure in figures.items() if name.startswith(beginning)]
    assert found
    assert [f for f in found if f["verdict"] != "pass"] == []


@pytest.mark.slow(reason="starts five nodes with engines, and kills one of them")
def test_equal_nodes_share_distinct_prompts_within_a_tenth(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "split")


def test_a_node_that_is_killed_loses_nothing_that_had_not_begun_there(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "kill -9: lost")


def test_a_stream_whose_node_dies_ends_in_an_error_event(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "kill -9: streams")


def test_a_node_that_joins_is_used_soon(figures: dict[str, dict[str, Any]]) -> None:
    """Within two seconds on a quiet machine, which the benchmark holds; this one may be busy."""
    (found,) = [figure for name, figure in figures.items() if name.startswith("a new node")]
    assert float(found["value"].split()[0]) <= 20


def test_after_random_cancels_nothing_is_held_anywhere(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "held after")
    held_to_its_bar(figures, "refused among")
