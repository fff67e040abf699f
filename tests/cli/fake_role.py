"""A stand-in for ``helexa neuron`` and ``helexa cortex``: ready line, two routes, clean end.

``FAKE_<ROLE>`` in the environment makes it misbehave: ``exit3``, ``silent``, ``die``, ``failed``,
``stubborn``. Every start and end is noted in the file ``FAKE_DIARY``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROLE = sys.argv[1]
MOOD = os.environ.get(f"FAKE_{ROLE.upper()}", "")


def note(what: str) -> None:
    with Path(os.environ["FAKE_DIARY"]).open("a") as diary:
        diary.write(f"{ROLE} {what} {os.getpid()}\n")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        failed = [{"model_id": "helexa/spark", "error": "truncated"}] if MOOD == "failed" else []
        loaded = os.environ.get("FAKE_NEURON") != "failed"
        data = [{"id": "helexa/spark", "loaded": loaded}]
        body = json.dumps({"data": data, "activation": {"failed": failed}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main() -> None:
    note("start")
    if MOOD == "exit3":
        print(f"helexa {ROLE}: port taken", file=sys.stderr)
        sys.exit(3)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if MOOD == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if MOOD != "silent":
        url = f"http://127.0.0.1:{server.server_address[1]}"
        print(json.dumps({"ready": True, "role": ROLE, "url": url}), flush=True)
    if MOOD == "die":
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while True:
            signal.pause()
    finally:
        note("end")


main()
