"""Whether a node could listen on its socket, and who does so already."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from helexa.neuron.hardware.driver import Fault
from helexa.neuron.settings import SOCKET, NeuronSettings, state_dir
from helexa.relay.unix import LONGEST_PATH

_SECS = 2.0
_MOST = 65_536  # bytes of an answer
_WITHOUT = "A gateway on this machine would take the network."
_ELSEWHERE = "or set state_dir in neuron.toml to another folder"


def check_socket(settings: NeuronSettings, environ: Mapping[str, str]) -> tuple[str, Fault | None]:
    """Who is at ``neuron.sock`` of this host's node.

    Returns:
        The node that runs here, in words (empty when none does); what is in the way of one.
    """
    path = (state_dir(settings, environ) / SOCKET).absolute()
    if not settings.local_socket:
        return "", None
    if len(os.fsencode(path)) > LONGEST_PATH:
        return "", _fault(
            f"{path} is longer than the {LONGEST_PATH} bytes of a socket's address.",
            "set state_dir in neuron.toml to a shorter path",
        )
    if not path.is_socket():
        if not path.exists():
            return "", None
        return "", _fault(f"{path} is there, and is not a socket.", f"remove it, {_ELSEWHERE}")
    return _asked(path)


def _asked(path: Path) -> tuple[str, Fault | None]:
    """Ask whoever listens at ``path`` what it is."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_SECS)
        try:
            asking.connect(str(path))
        except PermissionError:
            return "", _fault(
                f"{path} is of another user.", f"run this as the node's user, {_ELSEWHERE}"
            )
        except OSError:
            return "", None  # an earlier life has left it; the next takes its place
        pid = _pid_of(asking)
        version = _version(asking)
    who = f"process {pid}" if pid else "another process"
    if version is not None:
        return f"helexa {version} serves on {path} ({who})", None
    end = f"end process {pid}" if pid else "end that process"
    return "", _fault(
        f"{path} is in use by {who}, which does not answer like a node.", f"{end}, {_ELSEWHERE}"
    )


def _version(asking: socket.socket) -> str | None:
    """The package's version that the other side tells; None when it is no node."""
    connection = HTTPConnection("localhost")
    connection.sock = asking
    try:
        connection.request("GET", "/version")
        told = json.loads(connection.getresponse().read(_MOST))
        return str(told["package_version"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return None


def _pid_of(connected: socket.socket) -> int:
    """The process that listens there, by the kernel; 0 when it does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0
    pid: int = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, option, 12))[0]
    return pid


def _fault(reason: str, fix: str) -> Fault:
    return Fault(f"{reason} {_WITHOUT}", fix, blocking=False)
