from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).with_name("fake_role.py")
DRIVER = f"""
import sys
from helexa.cli.generated import Places
from helexa.cli.household import Household
command = lambda role: [sys.executable, {str(FAKE)!r}, role]
ports = [int(p) for p in sys.argv[1:4]]
sys.exit(Household(Places(*ports, None, "info"), command).run())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


@pytest.fixture
def start(diary: Path, tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(*ports: int, **moods: str) -> subprocess.Popen[str]:
        environ = {f"FAKE_{k.upper()}": v for k, v in moods.items()}
        environ |= {"FAKE_DIARY": str(diary), "TMPDIR": str(tmp_path)}  # some of them are killed
        child = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(str, ports or (0, 0, 0))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
        )
        running.append(child)
        return child

    yield begin
    for child in running:
        child.kill()
    for line in diary.read_text().splitlines() if diary.exists() else []:
        with contextlib.suppress(ProcessLookupError):  # a failed test must not leave them behind
            os.kill(int(line.split()[2]), signal.SIGKILL)
    for child in running:
        child.communicate()


def ready(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], 60)[0]
    line: dict[str, Any] = json.loads(child.stdout.readline())
    return line


def pid_of(diary: Path, role: str) -> int:
    for line in diary.read_text().splitlines():
        who, what, pid = line.split()
        if (who, what) == (role, "start"):
            return int(pid)
    raise AssertionError(f"{role} never started")


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_ready_means_both_serve_and_sigterm_ends_gateway_then_node(
    start: Start, diary: Path
) -> None:
    child = start()
    line = ready(child)
    assert line["ready"] is True
    assert line["role"] == "up"
    assert line["url"].startswith("http://127.0.0.1:")
    assert line["neuron_url"].startswith("http://127.0.0.1:")
    child.send_signal(signal.SIGTERM)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 0
    assert "export OPENAI_BASE_URL" in words
    assert [entry.split()[:2] for entry in diary.read_text().splitlines()] == [
        ["neuron", "start"],
        ["cortex", "start"],
        ["cortex", "end"],
        ["neuron", "end"],
    ]


def test_a_port_that_is_taken_is_named_with_the_option_that_changes_it(
    start: Start, diary: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = start(0, port, 0)
        _, words = child.communicate(timeout=60)
    assert child.returncode == 3
    wanted = f"port {port} on 127.0.0.1 is taken; stop what listens there or pass --neuron-port"
    assert wanted in words
    assert not diary.exists()


def test_all_ports_that_are_taken_are_named_at_once(start: Start) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        child = start(one.getsockname()[1], other.getsockname()[1], 0)
        _, words = child.communicate(timeout=60)
    assert "pass --port" in words
    assert "pass --neuron-port" in words


def test_a_port_that_is_given_twice_is_wrong_usage(start: Start, diary: Path) -> None:
    child = start(41999, 41999, 0)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "port 41999 is given twice" in words
    assert not diary.exists()


def test_a_state_directory_that_cannot_be_used_is_named_with_its_option(
    start: Start, diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    here = ("127.0.0.1", 0)
    with socket.create_server(here) as one, socket.create_server(here) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    child = start(*ports, 0)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 3
    assert f"the state directory {state}/helexa/up-{ports[0]} cannot be used" in words
    assert "pass another with --state-dir" in words
    assert not diary.exists()


def test_a_machine_without_room_for_temporary_files_is_said_in_words() -> None:
    nowhere = "import tempfile\ntempfile.tempdir = '/nonexistent'\n"
    done = subprocess.run(
        [sys.executable, "-c", nowhere + DRIVER, "0", "0", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.startswith("helexa up: no temporary file can be written: ")
    assert done.stderr.endswith("set TMPDIR to a folder with room\n")


def test_a_child_that_cannot_start_ends_the_household_with_its_status(
    start: Start, diary: Path
) -> None:
    child = start(cortex="exit3")
    _, words = child.communicate(timeout=60)
    assert child.returncode == 3
    assert "helexa cortex: port taken" in words
    assert gone(pid_of(diary, "neuron"))


def test_a_model_that_does_not_load_is_said_in_words(start: Start) -> None:
    child = start(neuron="failed")
    _, words = child.communicate(timeout=60)
    assert child.returncode == 3
    assert "helexa/spark did not load: truncated" in words


@pytest.mark.parametrize("role", ["neuron", "cortex"])
def test_a_child_that_dies_takes_the_household_down(start: Start, diary: Path, role: str) -> None:
    child = start()
    ready(child)
    os.kill(pid_of(diary, role), signal.SIGKILL)
    _, words = child.communicate(timeout=60)
    assert child.returncode == 9
    assert f"the {role} ended by signal 9" in words
    assert gone(pid_of(diary, "neuron"))
    assert gone(pid_of(diary, "cortex"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties children to us on Linux only")
def test_under_nohup_a_terminal_that_closes_ends_nobody(start: Start, diary: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as ``nohup`` hands it down
    try:
        child = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    ready(child)
    child.send_signal(signal.SIGHUP)
    os.kill(pid_of(diary, "cortex"), signal.SIGKILL)
    child.communicate(timeout=60)
    assert child.returncode == signal.SIGKILL  # of the gateway; a hang-up that counts is a 0


def test_children_end_when_the_parent_is_killed(start: Start, diary: Path) -> None:
    child = start()
    ready(child)
    child.kill()
    assert gone(pid_of(diary, "neuron"))
    assert gone(pid_of(diary, "cortex"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties children to us on Linux only")
def test_the_next_start_clears_away_what_a_killed_household_has_left(
    start: Start, diary: Path, tmp_path: Path
) -> None:
    child = start()
    ready(child)
    (left,) = tmp_path.glob("helexa-up-*")
    child.kill()
    assert all(gone(pid_of(diary, role)) for role in ("neuron", "cortex"))
    assert left.exists()
    second = start()
    ready(second)
    assert not left.exists()
    second.terminate()
    assert second.wait(60) == 0
    assert not list(tmp_path.glob("helexa-up-*"))


def test_asking_twice_ends_a_child_that_does_not_listen(start: Start, diary: Path) -> None:
    child = start(cortex="stubborn")
    ready(child)
    child.send_signal(signal.SIGINT)
    while child.poll() is None:
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert gone(pid_of(diary, "cortex"))
    assert gone(pid_of(diary, "neuron"))


def test_ctrl_c_while_starting_leaves_nobody_behind(start: Start, diary: Path) -> None:
    child = start(cortex="silent")
    deadline = time.monotonic() + 60
    while "cortex start" not in (diary.read_text() if diary.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert gone(pid_of(diary, "cortex"))
    assert gone(pid_of(diary, "neuron"))
