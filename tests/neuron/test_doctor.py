"""The doctor: what was found, in words, and the command for each problem."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from helexa.neuron.build.checkup import check_up
from helexa.neuron.build.socket_check import check_socket
from helexa.neuron.doctor import DoctorReport, EngineFinding, render, report
from helexa.neuron.engines.base import Verdict
from helexa.neuron.engines.llamacpp.build import build_for_this_machine, unused
from helexa.neuron.hardware import Hardware
from helexa.neuron.hardware.driver import Fault
from helexa.neuron.hardware.nvidia import Nvidia
from helexa.neuron.hardware.roots import Roots
from helexa.neuron.settings import NeuronSettings

GOOD = EngineFinding("llamacpp", "2026.10", ("CPU",), "AVX2 = 1")
WITHOUT_GPU = EngineFinding(
    "llamacpp", "2026.10", ("CPU",),
    verdict=Verdict(False, "engine_without_gpu", "built for the CPU only; run: pip install it"),
)  # fmt: skip


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    for path, text in {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Test Processor\nflags\t\t: avx2\n",
        "proc/meminfo": "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return make(tmp_path)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose sockets have addresses."""
    with tempfile.TemporaryDirectory(prefix="doc-") as folder:
        yield Path(folder)


def make(root: Path) -> Hardware:
    roots = Roots(root / "proc", root / "sys", (root / "lib",))
    return Hardware(roots, Nvidia(visible=""), allowed=lambda: 1)


def with_driver(root: Path, module: str, library: str) -> Hardware:
    (root / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (root / "proc" / "driver" / "nvidia" / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {module}  Thu Feb 22\n"
    )
    (root / "lib").mkdir()
    (root / "lib" / f"libnvidia-ml.so.{library}").touch()
    return make(root)


def test_a_gpu_that_cannot_be_used_stops_nothing_where_the_cpu_was_asked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "proc").mkdir()
    hardware = with_driver(tmp_path, "550.54.14", "535.161.07")
    assert not report(hardware, [GOOD]).ok
    found = report(hardware, [GOOD], cpu_only=True)
    assert found.ok
    assert [note.reason for note in found.notes]


def test_what_an_engine_only_repeats_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    hardware = with_driver(tmp_path, "550.54.14", "535.161.07")
    refused = Verdict(False, "engine_without_gpu", hardware.host().fault)
    found = report(hardware, [EngineFinding("llamacpp", "1", verdict=refused)])
    assert len(found.problems) == 1


def test_a_healthy_cpu_host_is_all_well(hardware: Hardware) -> None:
    found = report(hardware, [GOOD])
    assert found.ok
    text = render(found)
    for words in ("Test Processor, 1 of 1 cores", "2048 MiB free of 4096 MiB", "avx2",
                  "no NVIDIA driver", "llamacpp 2026.10, built for CPU", "all well"):  # fmt: skip
        assert words in text


def test_a_mismatch_comes_with_its_command(hardware: Hardware, tmp_path: Path) -> None:
    found = report(with_driver(tmp_path, "550.54.14", "550.90.07"), [GOOD])
    assert not found.ok
    text = render(found)
    assert "kernel module 550.54.14, user library 550.90.07" in text
    assert "fix with sudo systemctl stop neuron; sudo modprobe -r" in text
    assert "all well" not in text


def test_an_engine_that_cannot_use_the_gpu_comes_with_its_command(hardware: Hardware) -> None:
    found = report(hardware, [WITHOUT_GPU])
    assert [(p.reason, p.fix) for p in found.problems] == [
        ("llamacpp: built for the CPU only.", "pip install it")
    ]


def test_a_host_without_an_engine_is_told_how_to_get_one(hardware: Hardware) -> None:
    found = report(hardware, [])
    assert "pip install 'helexa[neuron]'" in render(found)
    assert not found.ok


def typed(config: Path, *words: str, **environ: str) -> tuple[int, str]:
    """What ``helexa doctor`` prints, and its status."""
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", "doctor", "--config", str(config), *words],
        env=os.environ | environ, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def vllm_of(folder: Path, version: str | None) -> Path:
    """An interpreter that says it has vLLM."""
    python = folder / "python"
    said = json.dumps({"version": version, "cpu": True})
    python.write_text(f"#!/bin/sh\necho '{said}'\n")
    python.chmod(0o755)
    return python


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "neuron.toml"
    file.write_text(f"[engines.vllm]\npython = '{vllm_of(tmp_path, '0.32.0+cpu')}'\n")
    return file


def test_the_command_prints_json_of_this_host(config: Path) -> None:
    status, said = typed(config, "--json")
    found = json.loads(said)
    assert found["cpu"]["cores"] >= 1
    assert [engine["name"] for engine in found["engines"]] == ["llamacpp", "vllm"]
    assert status == (1 if found["problems"] else 0)
    assert set(found) == set(DoctorReport.__struct_fields__)


def test_every_engine_is_listed_with_its_version_and_what_it_runs(
    config: Path, tmp_path: Path
) -> None:
    with config.open("a") as file:
        file.write(
            f"[engines.command.mine]\ncommand = ['{sys.executable}', '--port', '{{port}}']\n"
            "models = ['my/model']\n"
        )
    status, said = typed(config)
    assert f"engine    llamacpp {version('xllamacpp')}, built for CPU" in said
    assert f"engine    vllm 0.32.0, built for CPU, in {tmp_path}/python\n" in said
    assert "runs safetensors folders" in said
    assert f"engine    mine by {sys.executable}\n          runs my/model\n" in said
    assert (status, "all well" in said) == (0, True)


def test_what_is_named_and_missing_is_a_problem_with_what_would_mend_it(
    config: Path, tmp_path: Path
) -> None:
    python = vllm_of(tmp_path, None)
    with config.open("a") as file:
        file.write(
            "[engines.command.gone]\ncommand = ['no-such-server', '{port}']\n"
            "[engines.command.deaf]\ncommand = ['sh']\n"
        )
    status, said = typed(config)
    assert status == 1
    assert f"problem   vllm: engines.vllm.python names {python}, which has no vLLM." in said
    assert f"fix with {python} -m pip install vllm\n" in said
    assert "problem   gone: there is no program no-such-server.\n" in said
    assert "engines.command.gone.command" in said
    assert "a change to [engines.command.deaf] in neuron.toml" in said


def test_a_vllm_that_nobody_named_may_be_missing() -> None:
    found = check_up(NeuronSettings(), {"PATH": os.defpath})
    (vllm,) = [engine for engine in found.engines if engine.name == "vllm"]
    if vllm.version is None:
        assert [note.fix for note in found.notes if "vllm" in note.reason] == [
            "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm"
        ]
    assert not [problem for problem in found.problems if problem.reason.startswith("vllm")]


def test_a_file_that_is_named_and_does_not_load_is_a_usage_error(tmp_path: Path) -> None:
    config = tmp_path / "neuron.toml"
    config.write_text("[engine]\n")
    assert typed(config)[0] == 2


def test_an_engine_that_uses_less_than_the_cpu_has_comes_with_the_build_for_it(
    hardware: Hardware,
) -> None:
    wheel = "CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | REPACK = 1 | "
    own = "CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | "
    has = ("avx2", "fma", "avx512f", "avx512_vnni")
    assert unused(wheel, has) == ("avx512f", "avx512_vnni")
    assert unused(own, has) == ()
    assert unused("", has) == ()  # it could not be asked

    advice = Fault("llamacpp: …", build_for_this_machine("1.2"), blocking=False)
    found = report(hardware, [msgspec.structs.replace(GOOD, advice=advice)])
    assert found.ok
    assert found.notes[-1] == advice
    assert "--no-binary xllamacpp xllamacpp==1.2" in render(found)


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[None]:
    """Somebody at ``path`` who says ``answer`` to one who asks."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            asking, _ = server.accept()
            with asking:
                asking.recv(1000)
                asking.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(60)


def test_who_is_at_the_nodes_socket_is_said_a_node_or_anybody_else(
    short_path: Path, hardware: Hardware
) -> None:
    settings, path = NeuronSettings(state_dir=short_path), short_path / "neuron.sock"
    assert check_socket(settings, {}) == ("", None)
    with listening(path, b'HTTP/1.1 200 OK\r\n\r\n{"package_version": "9.9"}'):
        node, fault = check_socket(settings, {})
    assert (node, fault) == (f"helexa 9.9 serves on {path} (process {os.getpid()})", None)
    assert f"node      {node}\n" in render(report(hardware, [GOOD], node=node))
    path.unlink()
    with listening(path, b"220 mail\r\n"):
        node, fault = check_socket(settings, {})
    assert node == ""
    assert fault is not None
    assert f"{path} is in use by process {os.getpid()}, which does not" in fault.reason
    assert fault.fix.startswith(f"end process {os.getpid()}, or set state_dir")
    said = render(report(hardware, [GOOD], others=[fault]))
    assert f"note      {fault.reason}\n  fix with {fault.fix}\n" in said
    assert check_socket(settings, {}) == ("", None)  # the socket of somebody who is gone
    assert check_socket(NeuronSettings(state_dir=short_path, local_socket=False), {})[1] is None


def test_a_socket_that_could_not_be_made_is_said(short_path: Path) -> None:
    (short_path / "neuron.sock").write_text("")
    _, fault = check_socket(NeuronSettings(state_dir=short_path), {})
    assert fault is not None
    assert "is not a socket" in fault.reason
    _, fault = check_socket(NeuronSettings(state_dir=short_path / ("x" * 100)), {})
    assert fault is not None
    assert "shorter" in fault.fix
    assert not fault.blocking
