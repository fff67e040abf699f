"""``python -m helexa.neuron.engines.fake --engine fake --model NAME``, run by the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec

from helexa.neuron.engines import lifeline
from helexa.neuron.engines.fake.server import FakeConfig, FakeServer

_NOBODY_LISTENS = 1


async def _serve(config: FakeConfig, report: lifeline.Report) -> None:
    port = await FakeServer(config).start()
    report.send({"port": _NOBODY_LISTENS if config.fault == "no_port" else port})
    await asyncio.Event().wait()


def main() -> None:
    """Load (not much), report, serve."""
    report = lifeline.Report()
    config = msgspec.convert(lifeline.receive(), FakeConfig)
    lifeline.watch()
    time.sleep(config.start_s)
    if config.fault == "exit":
        report.send({"error": "the fake model cannot be loaded"})
        raise SystemExit(3)
    if config.fault == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.fault == "silent":
        signal.pause()
    asyncio.run(_serve(config, report))


if __name__ == "__main__":
    main()
