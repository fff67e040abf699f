"""The doctor: what was found, in words, and the command for each problem."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helexa.neuron.doctor import DoctorReport, EngineFinding, render, report
from helexa.neuron.engines.base import Verdict
from helexa.neuron.hardware import Hardware
from helexa.neuron.hardware.nvidia import Nvidia
from helexa.neuron.hardware.roots import Roots

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
    assert "mend by sudo systemctl stop neuron; sudo modprobe -r" in text
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


def test_the_command_prints_json_of_this_host() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, helexa.neuron.doctor as d; sys.exit(d.main(True))"],
        env=dict(os.environ), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["cpu"]["cores"] >= 1
    assert found["engines"][0]["name"] == "llamacpp"
    assert done.returncode == (1 if found["problems"] else 0)
    assert set(found) == set(DoctorReport.__struct_fields__)
