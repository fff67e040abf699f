"""Kernel module and user library: do they agree, and what to do when they do not."""

from __future__ import annotations

import pytest

from helexa.neuron.hardware.driver import Driver, fault_of, read_driver

from .conftest import OPEN_VERSION, VERSION, FakeHost


@pytest.mark.parametrize("form", [VERSION, OPEN_VERSION])
def test_both_versions_are_found(fake_host: FakeHost, form: str) -> None:
    fake_host.module("550.54.14", form)
    fake_host.library("550.54.14")
    fake_host.pci_gpu()
    driver = read_driver(fake_host.roots)
    assert driver == Driver("550.54.14", "550.54.14", on_bus=True)
    assert fault_of(driver) is None


def test_a_mismatch_is_said_in_words_with_the_command(fake_host: FakeHost) -> None:
    fake_host.module("550.54.14")
    fake_host.library("550.90.07")
    fault = fault_of(read_driver(fake_host.roots))
    assert fault is not None
    assert fault.blocking
    assert "550.54.14" in fault.reason
    assert "550.90.07" in fault.reason
    assert "modprobe -r nvidia_uvm" in fault.fix


def test_a_loaded_module_without_its_library_is_a_container_without_gpus(
    fake_host: FakeHost,
) -> None:
    fake_host.module("550.54.14")
    fault = fault_of(read_driver(fake_host.roots))
    assert fault is not None
    assert "--gpus all" in fault.fix


def test_a_gpu_whose_module_is_not_loaded_is_noticed(fake_host: FakeHost) -> None:
    fake_host.pci_gpu()
    fake_host.library("550.54.14")
    fault = fault_of(read_driver(fake_host.roots))
    assert fault is not None
    assert fault.fix == "sudo modprobe nvidia_uvm"
    assert fault.blocking


def test_a_gpu_that_never_had_a_driver_does_not_block_the_cpu(fake_host: FakeHost) -> None:
    fake_host.pci_gpu()
    fault = fault_of(read_driver(fake_host.roots))
    assert fault is not None
    assert not fault.blocking


def test_a_host_without_nvidia_has_no_fault(fake_host: FakeHost) -> None:
    assert fault_of(read_driver(fake_host.roots)) is None


def test_of_several_libraries_the_newest_counts(fake_host: FakeHost) -> None:
    fake_host.library("550.54.14")
    fake_host.library("550.100.3")
    assert read_driver(fake_host.roots).library == "550.100.3"
