"""A gateway on a script, for the commands that ask one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import TypeVar

S = TypeVar("S", bound=ThreadingHTTPServer)


@contextmanager
def served(gateway: S) -> Iterator[S]:
    """Have it answer in a thread of its own."""
    with gateway:
        thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield gateway
        gateway.shutdown()
        thread.join()
