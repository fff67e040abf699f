"""``python -m helexa.neuron.sources.fake FOLDER``: a hub over a folder, until it is ended."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from helexa.neuron.sources.fake.hub import FakeHub


def main() -> None:
    """Serve; one line of JSON says where."""
    parser = argparse.ArgumentParser(description="A hub over a folder of <org>/<name>/<files>.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--drip", type=int, help="bytes per second of every content")
    parser.add_argument("--token", help="the token that gated repositories want")
    parser.add_argument("--gated", action="append", default=[], help="a repository, org/name")
    given = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    hub = FakeHub(given.folder, given.port)
    hub.faults.drip, hub.faults.token = given.drip, given.token
    hub.faults.gated = set(given.gated)
    hub.start()
    sys.stdout.write(json.dumps({"ready": True, "role": "hub", "url": hub.url}) + "\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    hub.stop()


if __name__ == "__main__":
    main()
