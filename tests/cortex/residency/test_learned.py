"""What loads teach."""

from __future__ import annotations

from helexa.cortex.residency.learned import Learned


def test_the_download_of_a_first_load_is_not_expected_of_the_next() -> None:
    now = 0.0
    learned = Learned(lambda: now)
    now = 3600.0
    learned.fetching("node", "org/m")
    now = 3612.0
    learned.timed("node", "org/m", 3610.0)
    assert learned.load_s("node", "org/m") == 12.0
    learned.timed("node", "org/m", 14.0)
    assert learned.load_s("node", "org/m") == 13.0
