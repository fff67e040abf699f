"""How the serving commands begin and end, on real processes."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.neuron.system.conftest import until

ROLES = ("cortex", "neuron")


@pytest.fixture(autouse=True)
def installed(role: str) -> None:
    if role == "neuron":
        pytest.importorskip("xllamacpp")


def command(role: str, *arguments: str) -> list[str]:
    free = ["--port", "0"] + (["--metrics-port", "0"] if role == "cortex" else [])
    return [sys.executable, "-m", "helexa.cli", role, *free, *arguments]


# Says at its end what its collector does not look at.
SAYS_WHAT_IS_FROZEN = """
import atexit, gc, json, runpy, sys
say = lambda: print(json.dumps({"level": "", "frozen": gc.get_freeze_count()}), file=sys.stderr)
atexit.register(say)
runpy.run_module("helexa.cli", run_name="__main__", alter_sys=True)
"""


def metrics(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read(), "utf-8")


def refusal(role: str, *arguments: str) -> tuple[int, str]:
    """Status and the last line of stderr; stdout must have stayed empty."""
    done = subprocess.run(
        command(role, *arguments), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()[-1]


def settings(role: str, folder: Path, text: str = "") -> str:
    file = folder / f"{role}.toml"
    state = f'state_dir = "{folder}/state"\n' if role == "neuron" else ""
    if role == "cortex":
        state = f'[ledger]\nurl = "sqlite://{folder}/state/ledger.db"\n'
    file.write_text(state + text if role == "neuron" else text + state)
    return str(file)


@pytest.mark.parametrize("role", ROLES)
def test_a_named_file_that_is_missing_stops_the_start(role: str) -> None:
    assert refusal(role, "--config", "/nonexistent/x.toml") == (
        2,
        f"helexa {role}: /nonexistent/x.toml: there is no such file",
    )


@pytest.mark.parametrize("role", ROLES)
def test_an_unknown_key_stops_the_start_by_its_path_and_line(role: str, tmp_path: Path) -> None:
    file = settings(role, tmp_path, "[fleet]\nsecrt = 'x'\n")
    line = Path(file).read_text().splitlines().index("secrt = 'x'") + 1
    assert refusal(role, "--config", file) == (
        2,
        f"helexa {role}: {file}: unknown key `fleet.secrt`; did you mean secret? (at line {line})",
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_file_that_does_not_parse_stops_the_start_with_its_line(
    role: str, tmp_path: Path
) -> None:
    file = settings(role, tmp_path, "[fleet\n")
    status, words = refusal(role, "--config", file)
    assert status == 2
    assert words.startswith(f"helexa {role}: {file}: is not valid TOML:")
    assert "line" in words


@pytest.mark.parametrize("role", ROLES)
def test_a_check_says_that_settings_are_good_and_starts_nothing(role: str, tmp_path: Path) -> None:
    file = settings(role, tmp_path)
    done = subprocess.run(
        command(role, "--check", "--config", file),
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{file}: good; ")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("role", "text", "words"),
    [
        ("cortex", "models_config = 'none.toml'\n", "none.toml: there is no such file"),
        ("cortex", "[fleet]\nsecret_env = 'NOT_SET'\n", "NOT_SET is not set"),
        ("cortex", "[gateway]\ntls_cert = '/no.pem'\ntls_key = '/no.key'\n", "/no.pem"),
        ("neuron", "[fleet]\nsecret_env = 'NOT_SET'\n", "NOT_SET is not set"),
        ("neuron", "[sources.hf]\nendpoint = 'huggingface.co'\n", "https://huggingface.co"),
        ("neuron", "[engines.command.mine]\ncommand = ['x']\n", "has no {port}"),
    ],
)
def test_a_check_refuses_what_a_start_would_refuse(
    role: str, text: str, words: str, tmp_path: Path
) -> None:
    file = settings(role, tmp_path, text)
    for more in (["--check"], []):
        code, said = refusal(role, "--config", file, *more)
        assert code == 2
        assert words in said


@pytest.mark.parametrize("role", ROLES)
def test_a_taken_port_stops_the_start_and_names_the_option(role: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = "[gateway]\nlisten = '127.0.0.1:0'\n" if role == "cortex" else ""
        file = settings(role, tmp_path, listen)
        way_out = "stop what listens there or pass --port"
        assert refusal(role, "--config", file, "--port", str(port)) == (
            3,
            f"helexa {role}: port {port} on 127.0.0.1 is taken; {way_out}",
        )


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_start_says_ready_on_stdout_and_ends_cleanly_when_asked(
    role: str, ending: signal.Signals, tmp_path: Path
) -> None:
    file = settings(role, tmp_path)
    environ = os.environ | {f"{role.upper()}_NONSENSE": "1"}
    with subprocess.Popen(
        command(role, "--config", file),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    ) as child:
        assert child.stdout is not None
        assert select.select([child.stdout], [], [], 60)[0]
        line = json.loads(child.stdout.readline())
        assert (line["ready"], line["role"]) == (True, role)
        child.send_signal(ending)
        out, err = child.communicate(timeout=90)
    assert (child.returncode, out) == (0, "")
    logged = [json.loads(entry) for entry in err.splitlines()]
    warnings = [entry["event"] for entry in logged if entry["level"] == "warning"]
    assert f"{role.upper()}_NONSENSE in the environment is unknown and ignored" in warnings


@pytest.mark.parametrize("role", ROLES)
def test_a_process_that_serves_has_every_descriptor_a_quiet_collector_and_tells_its_lag(
    role: str, tmp_path: Path
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, _, *arguments = command(role, "--config", settings(role, tmp_path))[1:]
    limited = ("sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh")
    with subprocess.Popen(
        [*limited, sys.executable, "-c", SAYS_WHAT_IS_FROZEN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert select.select([child.stdout], [], [], 60)[0]
            line = json.loads(child.stdout.readline())
            assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (hard, hard)
            url = line["metrics_url"] if role == "cortex" else line["url"] + "/metrics"
            untold = f"{role}_event_loop_lag_seconds_count 0"
            until(lambda: untold not in metrics(url))
            assert f"{role}_event_loop_lag_seconds_count" in metrics(url)
            child.terminate()
            _, err = child.communicate(timeout=90)
        finally:
            child.kill()
    assert json.loads(err.splitlines()[-1])["frozen"] > 10_000
