"""The process that owns a foreign server: starts it on a free port, passes its end on.

Run by the supervisor as ``python -m helexa.neuron.engines.command.child --engine NAME --model ID``.
The server is a process of the same group, so that a stop or the neuron's end reaches all of it.
What it prints goes into the engine's log.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
from types import FrameType

import msgspec

from helexa.neuron.engines import lifeline
from helexa.neuron.engines.command.places import fill

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that none of them takes ours
between the moment it is found free and the moment the server listens."""


class CommandConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run.

    Args:
        values: Of all places but those that are known here only: port and key files.
        env: Added to the environment.
        key_name: Name of the key in the ``{env_file}``.
    """

    command: tuple[str, ...]
    values: dict[str, str]
    env: dict[str, str]
    api_key: str
    key_name: str = "API_KEY"
    cwd: str | None = None


def free_port() -> int:
    """A port of the loopback that nobody listens on now.

    Raises:
        OSError: There is none.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise OSError("no free port on the loopback between 20000 and 32000")


def secret_file(name: str, text: str) -> str:
    """Path of a file in memory that only this user can open, and that ends with this process."""
    fd = os.memfd_create(name)
    os.write(fd, text.encode())
    return f"/proc/{os.getpid()}/fd/{fd}"


def start(config: CommandConfig, port: int) -> subprocess.Popen[bytes]:
    """Start the server.

    Raises:
        OSError: The program cannot be started.
    """
    values = config.values | {
        "port": str(port),
        "key_file": secret_file("key", config.api_key + "\n"),
        "env_file": secret_file("env", f"{config.key_name}={config.api_key}\n"),
    }
    return subprocess.Popen(
        [fill(part, values) for part in config.command],
        env=os.environ | {name: fill(value, values) for name, value in config.env.items()},
        cwd=config.cwd,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread runs yet
    )


def _end_with_parent() -> None:
    """Should this process be killed by itself, the kernel ends the server too."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave_to_the_server(number: int, frame: FrameType | None) -> None:
    """The whole group got the signal: the server ends as it likes, then this process does."""


def main() -> None:
    """Start, report the port, and end as the server ends."""
    report = lifeline.Report()
    config = msgspec.convert(lifeline.receive(), CommandConfig)
    signal.signal(signal.SIGTERM, _leave_to_the_server)
    try:
        port = free_port()
        server = start(config, port)
    except OSError as error:
        report.send({"error": f"the command {config.command[0]!r} cannot be started: {error}"})
        raise SystemExit(3) from error
    lifeline.watch()
    report.send({"port": port})
    status = server.wait()
    if status < 0:
        with contextlib.suppress(OSError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
