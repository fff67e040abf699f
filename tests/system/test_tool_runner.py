"""Anthropic's tool runner, which would rather have its conversation kept: it must get along."""

from __future__ import annotations

from typing import Any

import anthropic
from tests.neuron.system.conftest import SPARK, until
from tests.system.rig import Stack


def test_the_tool_runner_falls_back_from_threads_and_calls_its_tool(stack: Stack) -> None:
    cities: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the weather of a city.

        Args:
            city: Its name.
        """
        cities.append(city)
        return "sunny, 21 degrees"

    client: Any = anthropic.Anthropic(base_url=stack.url, api_key="sk-open", max_retries=0)
    with client:
        runner = client.beta.messages.tool_runner(
            model=SPARK,
            max_tokens=100,
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=[get_weather],
            tool_choice={"type": "auto"},
            extra_body={"temperature": 0},
            max_iterations=3,
        )
        found = list(runner)
    assert cities == ["Paris"]
    assert found[0].stop_reason == "tool_use"
    assert found[-1].stop_reason == "end_turn"
    asked = until(lambda: (seen := statuses(stack)) and len(seen) > len(found) and seen)
    assert asked == [400, *[200] * len(found)]


def statuses(stack: Stack) -> list[int]:
    """Of every Messages request so far; the log is written a moment behind."""
    return [line["status"] for line in stack.cortex.lines() if line.get("route") == "messages"]
