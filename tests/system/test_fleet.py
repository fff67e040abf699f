"""Four nodes and a gateway as processes, under load: what one of them does to the others.

``benchmarks/fleet.py`` does it, here with few requests; ``make soak`` runs it with 10,000. One
run serves every test of this module.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fleet.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """By name: ``value``, ``bar``, ``verdict``, ``note``."""
    out = tmp_path_factory.mktemp("fleet") / "fleet.json"
    command = [sys.executable, str(BENCHMARK), "--requests", "300", "--seconds", "3"]
    ran = subprocess.run(
        [*command, "--json", str(out)], capture_output=True, text=True, timeout=170, check=False
    )
    assert out.exists(), ran.stderr
    return {figure["name"]: figure for figure in json.loads(out.read_text())["figures"]}


def held_to_its_bar(figures: dict[str, dict[str, Any]], beginning: str) -> None:
    found = [figure for name, figure in figures.items() if name.startswith(beginning)]
    assert found
    assert [f for f in found if f["verdict"] != "pass"] == []


@pytest.mark.timeout(180)
@pytest.mark.slow(reason="starts five nodes with engines, and kills one of them")
def test_equal_nodes_share_distinct_prompts_within_a_tenth(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "split")


@pytest.mark.timeout(180)
def test_a_node_that_is_killed_loses_nothing_that_had_not_begun_there(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "kill -9: lost")


@pytest.mark.timeout(180)
def test_a_stream_whose_node_dies_ends_in_an_error_event(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "kill -9: streams")


@pytest.mark.timeout(180)
def test_a_node_that_joins_is_used_within_two_seconds(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "a new node")


@pytest.mark.timeout(180)
def test_after_random_cancels_nothing_is_held_anywhere(
    figures: dict[str, dict[str, Any]],
) -> None:
    held_to_its_bar(figures, "held after")
    held_to_its_bar(figures, "refused among")
