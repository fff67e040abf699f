"""What counts as news about a device."""

from __future__ import annotations

import pytest

from helexa.core.fleet import DeviceReading
from helexa.neuron.housekeeping import moved


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        ([], [DeviceReading(0)], True),
        ([DeviceReading(0, 10, 100)], [DeviceReading(0, 12, 98)], False),
        ([DeviceReading(0, 10, 1000)], [DeviceReading(0, 900, 110)], True),
        ([DeviceReading(0, utilization_pct=5.0)], [DeviceReading(0, utilization_pct=90.0)], True),
        ([DeviceReading(0, utilization_pct=None)], [DeviceReading(0, utilization_pct=3.0)], False),
        ([DeviceReading(0)], [DeviceReading(0), DeviceReading(1)], True),
    ],
)
def test_only_what_a_gateway_would_decide_on_is_news(
    before: list[DeviceReading], now: list[DeviceReading], news: bool
) -> None:
    assert moved(before, now) is news
