"""What every serving command does around its application: log, settings, ready line, exit status.

::

    settings ──refused──▶ one message, exit 2
    bind     ──taken────▶ one message, exit 3
    ready    ───────────▶ one line of JSON on stdout; from here on everything goes to stderr
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import click

from helexa.core import logging
from helexa.core.settings import Loaded, SettingsError

T = TypeVar("T")

WRONG_CONFIGURATION = 2
COULD_NOT_START = 3
CRASHED = 1

AFTER_DRAIN_S = 30.0
"""Beyond the drain itself: what is cut says goodbye, engines end, and what is kept is written."""


class Bind(NamedTuple):
    """An address the application will listen on, and the option that changes its port."""

    host: str
    port: int
    option: str


class Application(NamedTuple):
    """One serving role.

    Args:
        role: ``cortex`` or ``neuron``.
        load: Reads the settings; may raise ``SettingsError``.
        binds: The addresses in the settings.
        run: Serves until SIGTERM or SIGINT.
    """

    role: str
    load: Callable[[], Loaded[Any]]
    binds: Callable[[Any], list[Bind]]
    run: Callable[[Any, Callable[[dict[str, object]], None]], Coroutine[Any, Any, None]]


class _Ready:
    """Prints the ready line, once, and remembers that the start succeeded."""

    def __init__(self, role: str) -> None:
        self._role = role
        self.announced = False

    def __call__(self, fields: dict[str, object]) -> None:
        self.announced = True
        print_ready({"ready": True, "role": self._role} | fields)
        notify_systemd(os.environ.get("NOTIFY_SOCKET", ""))


def print_ready(fields: dict[str, object]) -> None:
    """One line of JSON on stdout; whoever started us may have gone already."""
    try:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_ending(secs: float) -> None:
    """Tell a service manager that we end and may take ``secs``: it would kill us in the middle of
    a drain that is set to be longer than its own patience (``TimeoutStopSec=``)."""
    patience = round((secs + AFTER_DRAIN_S) * 1e6)
    with contextlib.suppress(OSError):
        notify_systemd(
            os.environ.get("NOTIFY_SOCKET", ""), f"STOPPING=1\nEXTEND_TIMEOUT_USEC={patience}"
        )


def notify_systemd(address: str, state: str = "READY=1") -> None:
    """Tell a service manager (``Type=notify``) how we are; see sd_notify(3)."""
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            notifier.send(state.encode())


def serve(application: Application, log_level: str) -> None:
    """Run ``application`` to its end and leave with the right status."""
    keep_no_core()
    sink = logging.configure(log_level, sys.stderr)
    try:
        status, message = _serve(application)
    finally:
        sink.close()
    if message:
        click.echo(f"helexa {application.role}: {message}", err=True)
    raise SystemExit(status)


def say_whether_it_would_start(
    application: Application, check: Callable[[Any], tuple[str, list[str]]]
) -> None:
    """Print what the settings set up, or why they cannot be used, and leave.

    Args:
        check: Returns the former, and what would not stop a start but is hardly meant; raises
            ``SettingsError``.
    """
    try:
        loaded = application.load()
        found, doubts = check(loaded.value)
    except SettingsError as error:
        click.echo(f"helexa {application.role}: {error}", err=True)
        raise SystemExit(WRONG_CONFIGURATION) from None
    for warning in (*loaded.warnings, *doubts):
        click.echo(f"helexa {application.role}: {warning}", err=True)
    click.echo(f"{loaded.path or 'defaults'}: good; {found}")


def _serve(application: Application) -> tuple[int, str]:
    import uvloop

    log = logging.get_logger(role=application.role)
    ready = _Ready(application.role)
    binds: list[Bind] = []
    try:
        loaded = application.load()
        for warning in loaded.warnings:
            log.warning(warning)
        binds = application.binds(loaded.value)
        uvloop.run(application.run(loaded.value, ready))
    except KeyboardInterrupt:
        return 128 + 2, ""
    except Exception as raised:
        error = alone(raised)
        if isinstance(error, SettingsError):
            return WRONG_CONFIGURATION, str(error)
        if isinstance(error, OSError) and not ready.announced:
            return COULD_NOT_START, explain(error, binds)
        log.exception("crashed")
        return CRASHED, f"stopped by {type(error).__name__}: {error}"
    return 0, ""


def keep_no_core() -> None:
    """A crash must not write our memory, and the secrets in it, to a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def alone(error: BaseException) -> BaseException:
    """``error`` without the groups that task groups wrap around a single exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def explain(error: OSError, binds: list[Bind]) -> str:
    """Words for a start that the system refused, with the address and the way out."""
    for bind in binds:
        refusal = refused(bind)
        if refusal:
            return refusal
    return f"could not start: {error}"


def refused(bind: Bind) -> str | None:
    """Why ``bind`` cannot be listened on right now, or None when it can."""
    try:
        family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((bind.host, bind.port))
    except OSError as error:
        where = f"port {bind.port} on {bind.host}"
        if error.errno == errno.EADDRINUSE:
            return f"{where} is taken; stop what listens there or pass {bind.option}"
        if error.errno == errno.EACCES:
            return f"{where} needs privileges; take one above 1023 with {bind.option}"
        return f"{where} cannot be used: {error.strerror or error}"
    return None


def with_port(listen: str, port: int | None) -> str:
    """``host:port`` with its port replaced, unless ``port`` is None."""
    return listen if port is None else f"{listen.rpartition(':')[0]}:{port}"
