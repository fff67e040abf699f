"""The parent of ``helexa up``: starts the node, then the gateway, and keeps them together.

::

    check ports ─▶ node: ready line ─▶ gateway: ready line ─▶ model loaded ─▶ our ready line
                                                                               │
                    stop gateway, then node  ◀── SIGINT, SIGTERM or a child that died

The parent does nothing else: no event loop, no engine, no relaying. Signals are blocked and
taken one at a time with ``sigtimedwait``, so nothing runs in a handler. Children are sessions of
their own (Ctrl-C reaches them only through us) and get SIGTERM from the kernel when we die.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from helexa.cli.generated import HOST, MODEL, Places, cortex_toml, models_toml, neuron_toml, welcome
from helexa.cli.remote import Unreachable, get_json
from helexa.cli.scratch import Scratch, sweep
from helexa.cli.serve import COULD_NOT_START, WRONG_CONFIGURATION, Bind, print_ready, refused
from helexa.core.folders import user_folder
from helexa.core.settings_keys import SettingsError

READY_SECS = 60.0
STOP_SECS = 40.0
WATCHED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The household cannot start or go on; carries the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Stopped(Exception):
    """Somebody asked us to end."""


def helexa_command(role: str) -> list[str]:
    """The command line that serves ``role`` with the interpreter that runs us."""
    return [sys.executable, "-m", "helexa.cli", role]


class Household:
    """Two children and the folder their generated settings live in.

    Args:
        places: Ports and folders.
        command: Role to command line; ``--config`` and ``--log-level`` are added.
    """

    def __init__(
        self, places: Places, command: Callable[[str], list[str]] = helexa_command
    ) -> None:
        self._places = places
        self._command = command
        self._scratch: Scratch
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watched = WATCHED

    def run(self) -> int:
        """Start, serve, stop; the exit status."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # ``nohup``: no terminal ends us
            self._watched = WATCHED - {signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        sweep()
        try:
            with _in_words():
                self._scratch = Scratch()
            self._serve()
        except Stopped:
            return 0
        except Failed as failure:
            click.echo(f"helexa up: {failure}", err=True)
            return failure.status
        return 0

    def _serve(self) -> None:
        try:
            self._start()
            self._watch(None)
        finally:
            self._stop()
            self._scratch.remove()

    def _start(self) -> None:
        places = self._places
        if twice := _given_twice(places):
            raise Failed(f"port {twice} is given twice; each needs its own", WRONG_CONFIGURATION)
        binds = (
            Bind(HOST, places.port, "--port"),
            Bind(HOST, places.neuron_port, "--neuron-port"),
            Bind(HOST, places.metrics_port, "--metrics-port"),
        )
        # All at once: beside a second household all three are taken.
        if refusals := list(filter(None, map(refused, binds))):
            raise Failed("\n".join(refusals), COULD_NOT_START)
        state = _usable(self._state_dir())
        self._write("models.toml", models_toml(places))
        neuron = self._ready("neuron", neuron_toml(places, state))
        neuron_url = str(neuron["url"])
        cortex = self._ready("cortex", cortex_toml(places, neuron_url, state))
        url = str(cortex["url"])
        loaded = self._await_model(url, neuron_url)
        print_ready(
            {"ready": True, "role": "up", "url": url}
            | {
                "metrics_url": cortex.get("metrics_url"),
                "neuron_url": neuron_url,
                "model": places.first,
            }
        )
        click.echo(welcome(url, places.first, ready=places.first in loaded), err=True)

    def _state_dir(self) -> Path:
        """One per gateway port, so that two households never share their records."""
        places = self._places
        if places.state_dir is not None:
            return places.state_dir.absolute()
        if not places.port or not places.neuron_port:
            return self._scratch.path
        try:
            base = user_folder("XDG_STATE_HOME", ".local/state", os.environ)
        except SettingsError as error:
            raise Failed(f"{error}, or pass --state-dir", WRONG_CONFIGURATION) from None
        return (base / "helexa" / f"up-{places.port}").absolute()

    def _write(self, name: str, text: str) -> Path:
        file = self._scratch.path / name
        with _in_words():
            file.write_text(text, encoding="utf-8")
        return file

    def _ready(self, role: str, settings: str) -> dict[str, Any]:
        """Start ``helexa ROLE`` and return its ready line."""
        file = self._write(f"{role}.toml", settings)
        command = [*self._command(role), "--config", str(file)]
        child = subprocess.Popen(
            [*command, "--log-level", self._places.log_level],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(self._scratch.lock,),
            preexec_fn=_tie_to_parent,  # noqa: PLW1509 - this process has one thread
        )
        self._children[role] = child
        return self._read_line(role, child)

    def _read_line(self, role: str, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        pipe = child.stdout
        got = b""
        deadline = time.monotonic() + READY_SECS
        while pipe is not None and b"\n" not in got:
            if time.monotonic() > deadline:
                raise Failed(f"the {role} was not ready after {READY_SECS:.0f} s", COULD_NOT_START)
            readable, _, _ = select.select([pipe], [], [], 0.02)
            chunk = os.read(pipe.fileno(), 65536) if readable else b""
            got += chunk
            if readable and not chunk:  # closed: the child is gone or about to be
                raise Failed(f"the {role} could not start", child.wait(5) or COULD_NOT_START)
            self._watch(0)
        line: dict[str, Any] = json.loads(got.splitlines()[0])
        return line

    def _await_model(self, url: str, neuron_url: str) -> set[str]:
        """Wait for the built-in model; all that is loaded by then."""
        deadline = time.monotonic() + READY_SECS
        while time.monotonic() < deadline:
            with contextlib.suppress(Unreachable):
                code, models = get_json(url, "/v1/models")
                found = models.get("data", []) if code == 200 else []
                loaded = {model["id"] for model in found if model["loaded"]}
                if MODEL in loaded:
                    return loaded
                _, health = get_json(neuron_url, "/health")
                for failure in health.get("activation", {}).get("failed", []):
                    if failure["model_id"] == MODEL:
                        raise Failed(f"{MODEL} did not load: {failure['error']}", COULD_NOT_START)
            self._watch(0.02)
        raise Failed(f"{MODEL} was not loaded after {READY_SECS:.0f} s", COULD_NOT_START)

    def _watch(self, timeout: float | None) -> None:
        """Take signals for ``timeout`` seconds (None: for ever).

        Raises:
            Stopped: SIGINT, SIGTERM, or SIGHUP unless that is ignored.
            Failed: A child ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
            taken = signal.sigtimedwait(self._watched, left)
            if taken is not None and taken.si_signo != signal.SIGCHLD:
                raise Stopped
            for role, child in self._children.items():
                if (status := child.poll()) is not None:
                    raise Failed(f"the {role} ended {_how(status)}", abs(status) or 1)
            if taken is None and deadline is not None:
                return

    def _stop(self) -> None:
        """Gateway first, so that its streams may finish on a living node; then the node."""
        for role in ("cortex", "neuron"):
            child = self._children.get(role)
            if child is None or child.poll() is not None:
                continue
            child.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECS
            while child.poll() is None and time.monotonic() < deadline:
                taken = signal.sigtimedwait(self._watched, 0.5)
                if taken is not None and taken.si_signo != signal.SIGCHLD:
                    break  # asked a second time: no more patience
            if child.poll() is None:
                child.kill()
                child.wait()


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Raises ``Failed`` where a temporary file cannot be written."""
    try:
        yield
    except OSError as error:
        raise Failed(
            f"no temporary file can be written: {error}; set TMPDIR to a folder with room",
            COULD_NOT_START,
        ) from error


def _usable(folder: Path) -> Path:
    """``folder``, which is made if it is not there.

    Raises:
        Failed: This user may not write to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise Failed(
            f"the state directory {folder} cannot be used: {error.strerror}; "
            "pass another with --state-dir",
            COULD_NOT_START,
        ) from error
    return folder


def _given_twice(places: Places) -> int | None:
    ports = [p for p in (places.port, places.neuron_port, places.metrics_port) if p]
    return next((port for port in ports if ports.count(port) > 1), None)


def _how(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"


def _tie_to_parent() -> None:
    """In the child, before exec: signals as usual again, SIGTERM when the parent dies."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
