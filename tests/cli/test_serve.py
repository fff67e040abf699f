from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from helexa.cli.serve import Application, Bind, serve, with_port
from helexa.core.settings import Loaded, SettingsError

pytestmark = pytest.mark.usefixtures("own_logging")

Announce = Callable[[dict[str, object]], None]
Run = Callable[[Any, Announce], Coroutine[Any, Any, None]]


def outcome(
    run: Run,
    capfd: pytest.CaptureFixture[str],
    load: Callable[[], Loaded[Any]] = lambda: Loaded(None, ("mind the gap",), None),
    binds: tuple[Bind, ...] = (),
) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as left:
        serve(Application("cortex", load, lambda _: list(binds), run), "info")
    shown = capfd.readouterr()
    return left.value.code, shown.out, shown.err


async def fine(_settings: object, announce: Announce) -> None:
    announce({"url": "http://127.0.0.1:1"})


def test_stdout_carries_the_ready_line_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(fine, capfd)
    assert code == 0
    assert json.loads(out) == {"ready": True, "role": "cortex", "url": "http://127.0.0.1:1"}
    assert out.count("\n") == 1
    assert "mind the gap" in err


def test_wrong_settings_are_one_message_and_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> Loaded[Any]:
        raise SettingsError("/etc/x.toml: unknown key `a`")

    code, out, err = outcome(fine, capfd, load)
    assert (code, out) == (2, "")
    assert err == "helexa cortex: /etc/x.toml: unknown key `a`\n"


def test_settings_found_wrong_inside_a_task_group_are_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def run(_settings: object, _announce: Announce) -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [SettingsError("models.toml: no")])])

    code, _, err = outcome(run, capfd)
    assert code == 2
    assert "helexa cortex: models.toml: no" in err


def test_a_taken_port_is_named_with_the_way_out_and_status_3(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def run(_settings: object, _announce: Announce) -> None:
            socket.create_server(("127.0.0.1", port))

        binds = (Bind("127.0.0.1", 0, "--port"), Bind("127.0.0.1", port, "--metrics-port"))
        code, out, err = outcome(run, capfd, binds=binds)
    assert (code, out) == (3, "")
    wanted = f"port {port} on 127.0.0.1 is taken; stop what listens there or pass --metrics-port"
    assert wanted in err


def test_an_address_of_another_machine_is_said_so(capfd: pytest.CaptureFixture[str]) -> None:
    async def run(_settings: object, _announce: Announce) -> None:
        socket.create_server(("192.0.2.1", 1234))

    code, _, err = outcome(run, capfd, binds=(Bind("192.0.2.1", 1234, "--port"),))
    assert code == 3
    assert "port 1234 on 192.0.2.1 cannot be used" in err


def test_a_crash_while_serving_is_status_1_with_its_traceback_in_the_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def run(_settings: object, announce: Announce) -> None:
        announce({"url": "x"})
        raise OSError("disk on fire")

    code, _, err = outcome(run, capfd)
    assert code == 1
    assert "Traceback" in err
    assert "disk on fire" in err


def test_a_service_manager_is_told_when_we_serve(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        outcome(fine, capfd)
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("role", ["cortex", "neuron"])
def test_a_service_manager_is_asked_for_as_much_time_as_a_drain_may_take(
    role: str, tmp_path: Path
) -> None:
    settings = {
        "cortex": "[gateway]\nlisten = '127.0.0.1:0'\nmetrics_listen = '127.0.0.1:0'\n"
        "drain_secs = 600\n[ledger]\nurl = 'memory:'\n",
        "neuron": f"port = 0\nstate_dir = '{tmp_path}/state'\n[life]\ndrain_secs = 600\n",
    }
    (tmp_path / "role.toml").write_text(settings[role])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        service = subprocess.Popen(
            [sys.executable, "-m", "helexa.cli", role, "--config", str(tmp_path / "role.toml")],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            service.terminate()
            assert manager.recv(100) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=630000000"
            assert service.wait(60) == 0
        finally:
            service.kill()
            service.wait()


def test_only_the_port_of_an_address_is_replaced() -> None:
    assert with_port("[::1]:80", 0) == "[::1]:0"
    assert with_port("0.0.0.0:31313", None) == "0.0.0.0:31313"
