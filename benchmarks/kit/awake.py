"""Cores that do not sleep: work of the lowest priority beside what is measured.

Who waits for the next token is woken on a core that sleeps, or on one that was doing something
else, as on servers with more to do than that. A wake-up does not cost the same on both, and who is
woken for every token feels it more than who finds many when it wakes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kit.process import Process

_SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


def keep_awake(core: int, scratch: Path) -> Process:
    """Take whatever time nobody else wants on ``core``, until stopped."""
    return Process([sys.executable, "-S", "-c", _SPIN], scratch / f"awake-{core}.log", core=core)
