"""The CPU side: what this process may use of the machine."""

from __future__ import annotations

import pytest

from helexa.neuron.hardware.cgroup import MemoryLimit, cpu_quota, memory_limit
from helexa.neuron.hardware.cpu import Busy, Memory, read_cpu, read_memory
from helexa.neuron.hardware.roots import Roots

from .conftest import FakeHost

GIB = 1 << 30


def test_the_processor_is_described(fake_host: FakeHost) -> None:
    cpu = read_cpu(fake_host.roots, lambda: 4)
    assert (cpu.model, cpu.cores, cpu.cores_total) == ("Test Processor 9000", 4, 4)
    assert cpu.instruction_sets == ("sse4_2", "avx", "avx2", "fma", "f16c")


def test_affinity_limits_the_cores(fake_host: FakeHost) -> None:
    assert read_cpu(fake_host.roots, lambda: 2).cores == 2


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 4), ("1600000 100000", 4)],
)
def test_a_cgroup_quota_limits_the_cores(fake_host: FakeHost, quota: str, cores: int) -> None:
    fake_host.write("proc/self/cgroup", "0::/system.slice/neuron.service\n")
    fake_host.write("sys/fs/cgroup/system.slice/neuron.service/cpu.max", quota)
    assert read_cpu(fake_host.roots, lambda: 4).cores == cores


def test_memory_is_the_machines_without_a_limit(fake_host: FakeHost) -> None:
    assert read_memory(fake_host.roots) == Memory(16384, 8192)


def test_a_cgroup_limit_bounds_memory_and_what_is_free_of_it(fake_host: FakeHost) -> None:
    group = "sys/fs/cgroup/system.slice/neuron.service"
    fake_host.write("proc/self/cgroup", "0::/system.slice/neuron.service\n")
    fake_host.write(f"{group}/memory.max", str(4 * GIB))
    fake_host.write(f"{group}/memory.current", str(3 * GIB))
    fake_host.write(f"{group}/memory.stat", f"anon {GIB}\ninactive_file {GIB}\n")
    assert read_memory(fake_host.roots) == Memory(4096, 2048)


def test_a_limit_further_up_holds_too(fake_host: FakeHost) -> None:
    fake_host.write("proc/self/cgroup", "0::/outer/inner\n")
    fake_host.write("sys/fs/cgroup/outer/memory.max", str(2 * GIB))
    fake_host.write("sys/fs/cgroup/outer/inner/memory.max", str(4 * GIB))
    fake_host.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000")
    fake_host.write("sys/fs/cgroup/outer/cpu.max", "100000 100000")
    assert memory_limit(fake_host.roots) == MemoryLimit(2048, 0)
    assert cpu_quota(fake_host.roots) == 1.0


def test_neighbours_under_a_larger_limit_take_of_what_is_free(fake_host: FakeHost) -> None:
    fake_host.write("proc/self/cgroup", "0::/pod/mine\n")
    fake_host.write("sys/fs/cgroup/pod/memory.max", str(6 * GIB))
    fake_host.write("sys/fs/cgroup/pod/memory.current", str(5 * GIB))
    fake_host.write("sys/fs/cgroup/pod/mine/memory.max", str(4 * GIB))
    fake_host.write("sys/fs/cgroup/pod/mine/memory.current", str(GIB))
    assert read_memory(fake_host.roots) == Memory(4096, 1024)


def test_memory_is_planned_below_where_the_kernel_slows_a_group_down(fake_host: FakeHost) -> None:
    fake_host.write("proc/self/cgroup", "0::/mine\n")
    fake_host.write("sys/fs/cgroup/mine/memory.max", str(8 * GIB))
    fake_host.write("sys/fs/cgroup/mine/memory.high", str(3 * GIB))
    fake_host.write("sys/fs/cgroup/mine/memory.current", str(GIB))
    assert read_memory(fake_host.roots) == Memory(3072, 2048)
    fake_host.write("sys/fs/cgroup/mine/memory.high", str(GIB // 2))  # lowered while it runs
    assert read_memory(fake_host.roots) == Memory(512, 0)


def test_version_one_limits_are_read(fake_host: FakeHost) -> None:
    fake_host.write("proc/self/cgroup", "4:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n")
    fake_host.write("sys/fs/cgroup/memory/memory.limit_in_bytes", str(GIB))
    fake_host.write("sys/fs/cgroup/memory/memory.usage_in_bytes", str(GIB // 4))
    fake_host.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000")
    fake_host.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert read_memory(fake_host.roots) == Memory(1024, 768)
    assert read_cpu(fake_host.roots, lambda: 4).cores == 3


def test_no_limit_in_version_one_is_a_very_large_number(fake_host: FakeHost) -> None:
    fake_host.write("proc/self/cgroup", "4:memory:/\n")
    fake_host.write("sys/fs/cgroup/memory/memory.limit_in_bytes", str(9223372036854771712))
    assert memory_limit(fake_host.roots) is None


def test_a_host_without_proc_has_one_core_and_no_memory(fake_host: FakeHost) -> None:
    nowhere = Roots(fake_host.root / "none", fake_host.root / "none")
    assert read_cpu(nowhere, lambda: 8).cores == 1
    assert read_memory(nowhere) == Memory(0, 0)


def test_utilisation_is_between_two_looks(fake_host: FakeHost) -> None:
    busy = Busy(fake_host.roots)
    assert busy.percent() is None
    fake_host.write("proc/stat", "cpu  200 0 150 850 0 0 0 0 0 0\n")
    assert busy.percent() == 75.0
    assert busy.percent() is None
