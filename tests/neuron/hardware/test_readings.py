"""One cached picture of the host, whatever it has."""

from __future__ import annotations

import os
import threading
import time

import pytest

from helexa.core.fleet import Device, DeviceReading
from helexa.neuron.hardware import Hardware
from helexa.neuron.hardware.nvidia import Nvidia
from helexa.neuron.hardware.readings import resident_mb

from .conftest import FakeHost, FakeNvml

H100 = ("NVIDIA H100", 81559, 1000)


def make(host: FakeHost, nvml: FakeNvml | None = None, visible: str | None = None) -> Hardware:
    missing = FakeNvml([], init_error="NVML Shared Library Not Found")
    return Hardware(
        host.roots, Nvidia(nvml or missing, visible), harnesses=["llamacpp"], allowed=lambda: 4,
        max_prompt_tokens=5000, interval_s=0.01,
    )  # fmt: skip


def test_a_cpu_host_is_one_device_with_the_hosts_memory(fake_host: FakeHost) -> None:
    hardware = make(fake_host)
    discovery = hardware.discovery()
    assert discovery.devices == [Device(0, "Test Processor 9000", 16384, kind="cpu")]
    assert discovery.cuda_unavailable_reason is None
    assert (discovery.harnesses, discovery.max_prompt_tokens) == (["llamacpp"], 5000)
    assert hardware.devices() == [DeviceReading(0, 8192, 8192)]
    host = hardware.host()
    assert (host.memory_total_mb, host.memory_free_mb, host.cores) == (16384, 8192, 4)
    assert host.fault is None


def test_a_gpu_host_lists_its_gpus_and_not_its_cpu(fake_host: FakeHost) -> None:
    fake_host.module("550.54.14")
    fake_host.library("550.54.14")
    hardware = make(fake_host, FakeNvml([H100, ("NVIDIA L4", 23034, 0)]))
    discovery = hardware.discovery()
    assert discovery.devices[0] == Device(0, "NVIDIA H100", 81559, "9.0")
    assert [d.name for d in discovery.devices] == ["NVIDIA H100", "NVIDIA L4"]
    assert (discovery.driver_version, discovery.cuda_version) == ("550.54.14", "12.4")
    assert hardware.devices()[0] == DeviceReading(0, 1000, 80559, 37.0, 61.0)
    assert hardware.host().fault is None


def test_what_a_device_does_not_support_is_left_out(fake_host: FakeHost) -> None:
    nvml = FakeNvml([H100], without={"utilization", "temperature", "capability"})
    hardware = make(fake_host, nvml)
    assert hardware.devices() == [DeviceReading(0, 1000, 80559)]
    assert hardware.discovery().devices[0].compute_capability is None


@pytest.mark.parametrize(("visible", "names"), [
    ("1", ["b"]), ("1,0", ["b", "a"]), ("GPU-2aaa", ["c"]), ("", []), ("0,9,1", ["a"]),
])  # fmt: skip
def test_devices_are_numbered_as_cuda_numbers_them(
    fake_host: FakeHost, visible: str, names: list[str]
) -> None:
    devices = Nvidia(FakeNvml([(n, 1000, 0) for n in "abc"]), visible).open()
    assert [(d.index, d.name) for d in devices] == list(enumerate(names))


def test_a_mismatch_is_reported_and_blocks_a_silent_fallback(fake_host: FakeHost) -> None:
    fake_host.module("550.54.14")
    fake_host.library("550.90.07")
    hardware = make(fake_host, FakeNvml([], init_error="Driver/library version mismatch"))
    reason = hardware.discovery().cuda_unavailable_reason
    assert reason is not None
    assert "550.90.07" in reason
    assert hardware.host().fault == reason
    assert hardware.discovery().driver_version == "550.54.14"


def test_a_driver_that_will_not_talk_is_a_fault_in_its_own_words(fake_host: FakeHost) -> None:
    fake_host.module("550.54.14")
    fake_host.library("550.54.14")
    hardware = make(fake_host, FakeNvml([], init_error="Insufficient Permissions"))
    assert hardware.fault is not None
    assert "Insufficient Permissions" in hardware.fault.reason


def test_a_gpu_without_memory_of_its_own_has_the_hosts(fake_host: FakeHost) -> None:
    hardware = make(fake_host, FakeNvml([("NVIDIA GB10", 0, 0)], without={"memory"}))
    assert hardware.discovery().devices == [Device(0, "NVIDIA GB10", 16384, "9.0")]
    assert hardware.devices() == [DeviceReading(0, 8192, 8192, 37.0, 61.0)]
    assert (hardware.fault, hardware.host().fault) == (None, None)


def test_a_gpu_that_fell_off_the_bus_takes_no_other_with_it(fake_host: FakeHost) -> None:
    fake_host.module("550.54.14")
    fake_host.library("550.54.14")
    hardware = make(fake_host, FakeNvml([H100, ("NVIDIA L4", 23034, 0)], lost={0}))
    assert [(d.index, d.name) for d in hardware.discovery().devices] == [(0, "NVIDIA L4")]
    assert "GPU 0: GPU is lost" in (hardware.discovery().cuda_unavailable_reason or "")
    assert hardware.host().fault is None
    alone = make(fake_host, FakeNvml([H100], lost={0}))
    assert "GPU 0: GPU is lost" in (alone.host().fault or "")


def test_a_driver_that_dies_is_said_in_its_words_until_it_answers_again(
    fake_host: FakeHost,
) -> None:
    nvml = FakeNvml([H100, H100])
    hardware = make(fake_host, nvml)
    nvml.lost = {1}
    host = hardware.refresh()
    assert [reading.vram_free_mb for reading in host.readings] == [80559, 0]
    assert host.fault is None
    assert "GPU 1: GPU is lost" in (hardware.discovery().cuda_unavailable_reason or "")
    nvml.lost = {0, 1}
    assert "stopped answering (GPU 0: GPU is lost; GPU 1" in (hardware.refresh().fault or "")
    nvml.lost = set()
    assert hardware.refresh().fault is None
    assert hardware.discovery().cuda_unavailable_reason is None


def test_processors_and_quotas_that_go_are_noticed(fake_host: FakeHost) -> None:
    hardware = make(fake_host)
    assert hardware.host().cores == 4
    fake_host.write("proc/self/cgroup", "0::/neuron.service\n")
    fake_host.write("sys/fs/cgroup/neuron.service/cpu.max", "200000 100000\n")
    assert hardware.refresh().cores == 2


def test_memory_of_processes_is_told_per_device(fake_host: FakeHost) -> None:
    nvml = FakeNvml([H100, H100], processes={0: [(10, 500), (11, 100)], 1: [(12, 7)]})
    assert make(fake_host, nvml).used_by([10, 11]) == {0: 600}


def test_samples_are_taken_in_the_background_and_served_cached(fake_host: FakeHost) -> None:
    hardware = make(fake_host)
    sampled = threading.Event()
    hardware._on_sample = sampled.set
    fake_host.write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 1048576 kB\n")
    assert hardware.host().memory_free_mb == 8192
    hardware.start()
    assert sampled.wait(30)
    hardware.stop()
    assert hardware.host().memory_free_mb == 1024


def test_a_driver_that_hangs_delays_no_reader(fake_host: FakeHost) -> None:
    hardware = make(fake_host, FakeNvml([H100]))
    hanging, release = threading.Event(), threading.Event()

    def hang() -> list[DeviceReading]:
        hanging.set()
        release.wait(60)
        return []

    hardware._nvidia.readings = hang  # type: ignore[method-assign]
    hardware.start()
    assert hanging.wait(30)
    begin = time.monotonic()
    assert hardware.devices()[0].vram_free_mb == 80559
    assert hardware.discovery().devices
    assert time.monotonic() - begin < 30  # half of what the driver takes
    release.set()
    hardware.stop()


def test_a_refresh_shows_the_present(fake_host: FakeHost) -> None:
    hardware = make(fake_host)
    fake_host.write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 2097152 kB\n")
    assert hardware.refresh().memory_free_mb == 2048
    assert hardware.host().memory_free_mb == 2048


def test_this_host_can_be_read() -> None:
    hardware = Hardware.of_this_host(os.environ)
    assert hardware.host().cores >= 1
    assert hardware.host().memory_free_mb > 0
    assert hardware.discovery().devices
    hardware.stop()


def test_the_memory_of_a_process_is_its_resident_pages() -> None:
    assert resident_mb(os.getpid()) > 10
    assert resident_mb(2**22 + 1) == 0


def test_a_budget_is_all_the_memory_there_is_and_models_count_as_planned(
    fake_host: FakeHost,
) -> None:
    missing = FakeNvml([], init_error="NVML Shared Library Not Found")
    hardware = Hardware(fake_host.roots, Nvidia(missing), allowed=lambda: 1, budget_mb=1000)
    assert hardware.discovery().devices[0].vram_total_mb == 1000
    assert hardware.devices() == [DeviceReading(0, 0, 1000)]
    hardware.held_mb = lambda: 700
    host = hardware.refresh()
    assert (host.memory_total_mb, host.memory_free_mb) == (1000, 300)
    assert hardware.devices() == [DeviceReading(0, 700, 300)]
    hardware.held_mb = lambda: 1200
    assert hardware.refresh().memory_free_mb == 0
