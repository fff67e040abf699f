"""Runs vLLM's server inside the interpreter that has it; standard library only.

Started by the supervisor as ``PYTHON launcher.py --engine vllm --model NAME``: the arguments are
for whoever reads ``ps``, what counts comes in on stdin. The key is put into ``sys.argv``, which is
this process's memory and not its command line. A second process waits for the end and sweeps up
what vLLM leaves behind when it is killed: sockets, shared memory, its own workers. vLLM's workers
import this file too, as ``__mp_main__``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import itertools
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from multiprocessing import process, shared_memory
from pathlib import Path
from typing import Any

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it
_SOCKET, _NOTED = "engine", "shared-memory"
_POLL_S, _POLLS_A_NOTE = 0.05, 20
_ROUNDS = 2
_ENTRY = "vllm.entrypoints.launchers.api_server.entry"
_OLD_ENTRY = "vllm.entrypoints.openai.api_server"
_QUEUES = "vllm.distributed.device_communicators.shm_broadcast"
_SPIN_S = "HELEXA_VLLM_SPIN_S"


def name_shared_memory(group: int) -> None:
    """Have this process and its children name shared memory so that it can be found again."""
    vars(shared_memory)["_SHM_NAME_PREFIX"] = f"/helexa-{group}-"
    vars(shared_memory)["_SHM_SAFE_NAME_LENGTH"] = 40
    config: dict[str, Any] = vars(process.current_process()).get("_config", {})
    config["semprefix"] = f"/helexa-{group}"


def sleep_while_waiting() -> None:
    """Where ``_SPIN_S`` is set: a process of vLLM's that waits for another spins only so long.

    Its own way is a second from each message on, which while it decodes is always: the scheduler
    takes a core from the threads that compute, for as long as they do. Behind the spinning it
    waits for the notification that comes with every message.
    """
    seconds = os.environ.get(_SPIN_S)
    if seconds is None:
        return
    condition: Any = getattr(importlib.import_module(_QUEUES), "SpinCondition", None)
    if condition is not None and "busy_loop_s" in inspect.signature(condition).parameters:
        briefly = functools.partialmethod(condition.__init__, busy_loop_s=float(seconds))
        condition.__init__ = briefly


def sweep_after(folder: Path) -> None:
    """Fork the sweeper: when this process has ended, nothing of its group remains."""
    group = os.getpgid(0)
    ours, lives = os.pipe()
    if os.fork():
        os.close(ours)
        return  # ``lives`` stays open until this process ends, however it does
    os.close(lives)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.read(ours, 1)
    _sweep(group, folder)
    os._exit(0)


def _sweep(group: int, folder: Path) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        for _ in range(_ROUNDS):  # twice, for one that was just being born
            os.killpg(group, signal.SIGKILL)
            time.sleep(_POLL_S)
    for pattern in (f"helexa-{group}-*", f"sem.helexa-{group}-*"):
        for path in _SHARED_MEMORY.glob(pattern):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for line in (folder / _NOTED).read_text().splitlines():
            Path(line).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _note_shared_memory(folder: Path) -> None:
    """Write down what this group has mapped under names of its own (tensor parallel on a CPU)."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(entry.name)) == os.getpgid(0):
                lines = (entry / "maps").read_text().splitlines()
                found |= {"/" + line.partition("/")[2] for line in lines if "/dev/shm/" in line}  # noqa: S108
    fresh = folder / (_NOTED + ".new")  # whole or not at all, whatever ends us meanwhile
    fresh.write_text("".join(f"{path}\n" for path in sorted(found)))
    fresh.replace(folder / _NOTED)


def _report_when_listening(report: Any, folder: Path) -> None:
    """Say where, once somebody answers there; loading takes from seconds to minutes."""
    path = str(folder / _SOCKET)
    for turn in itertools.count():
        if turn % _POLLS_A_NOTE == 0:  # it may be killed before it serves
            _note_shared_memory(folder)
        with socket.socket(socket.AF_UNIX) as trial, contextlib.suppress(OSError):
            trial.connect(path)
            _note_shared_memory(folder)
            report.send({"uds": path})
            return
        time.sleep(_POLL_S)


def _lifeline() -> Any:
    """The file beside this package that every engine process of a neuron runs."""
    path = Path(__file__).resolve().parents[1] / "lifeline.py"
    spec = importlib.util.spec_from_file_location("helexa_lifeline", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _serve() -> None:
    """VLLM's own main; the module moved between releases."""
    try:
        found = importlib.util.find_spec(_ENTRY)
    except ModuleNotFoundError:
        found = None
    if found is None:
        runpy.run_module(_OLD_ENTRY, run_name="__main__")
    else:
        importlib.import_module(_ENTRY).main()


def main() -> None:
    """Receive, prepare, serve until the neuron or a signal ends it."""
    lifeline = _lifeline()
    report = lifeline.Report()
    config = lifeline.receive()
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="helexa-vllm-", dir=base))
    sweep_after(folder)
    lifeline.watch()
    name_shared_memory(os.getpgid(0))
    os.environ["VLLM_RPC_BASE_PATH"] = str(folder)
    socket_path = str(folder / _SOCKET)
    sys.argv = ["vllm", *config["argv"], "--uds", socket_path, "--api-key", config["api_key"]]
    threading.Thread(target=_report_when_listening, args=(report, folder), daemon=True).start()
    try:
        _serve()
    except Exception as error:  # whatever it was, the neuron has to hear of it
        with contextlib.suppress(OSError):
            report.send({"error": f"vLLM could not load the model: {error}"})
        raise


if __name__ == "__main__":
    del sys.path[0]  # this folder: its names are not vLLM's business
    main()
elif __name__ == "__mp_main__":  # a worker that vLLM has spawned
    name_shared_memory(os.getpgid(0))
    sleep_while_waiting()
