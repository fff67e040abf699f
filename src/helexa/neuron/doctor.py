"""``helexa doctor``: what this host has, what each engine was built for, and what to mend.

::

    Hardware ─┐
    engines ──┴─▶ report() ─▶ DoctorReport ─▶ render() for people, JSON for programs

An engine's verdict is its own ``can_run`` for the built-in model, the check a load meets. Every
problem comes with the command that mends it. ``build.checkup`` looks at the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from helexa.core.fleet import DeviceReading, Discovery
from helexa.neuron.engines.base import Verdict
from helexa.neuron.hardware.cpu import CpuFacts
from helexa.neuron.hardware.driver import Driver, Fault
from helexa.neuron.hardware.readings import Hardware


class EngineFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One engine as found.

    Args:
        version: None when it is not installed, or has none that it could be asked for.
        built_for: What it can use, in its own names (``CPU``, ``CUDA0``).
        features: Its own line about instruction sets and backends.
        program: The interpreter or program that runs it, where it is not helexa's own.
        runs: What it is for.
        wanted: It comes with helexa, or the operator has named it; if it is not wanted, it may be
            missing.
        verdict: Whether it would run the built-in model here.
        advice: What would make it better here, and the command for it.
    """

    name: str
    version: str | None
    built_for: tuple[str, ...] = ()
    features: str = ""
    program: str = ""
    runs: str = ""
    wanted: bool = True
    verdict: Verdict = Verdict(True)
    advice: Fault | None = None


class DoctorReport(msgspec.Struct, frozen=True):
    """Everything found.

    Args:
        problems: What stops work; each is mended by its ``fix``.
        notes: What could be better and stops nothing.
        node: The node that runs here, in words; empty when none was found.
    """

    host: Discovery
    cpu: CpuFacts
    memory_total_mb: int
    memory_free_mb: int
    readings: tuple[DeviceReading, ...]
    driver: Driver
    engines: tuple[EngineFinding, ...]
    problems: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    node: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.problems


def report(
    hardware: Hardware,
    engines: Sequence[EngineFinding],
    *,
    cpu_only: bool = False,
    node: str = "",
    others: Sequence[Fault] = (),
) -> DoctorReport:
    """Put together what was found; pure but for reading the last sample.

    Args:
        cpu_only: The operator wants the CPU (``gpu_layers = 0``): a GPU that cannot be used is
            worth a note and stops nothing.
        node: See ``DoctorReport``.
        others: What was found besides.
    """
    host, faults = hardware.host(), [hardware.fault] if hardware.fault else []
    if cpu_only:
        faults = [msgspec.structs.replace(fault, blocking=False) for fault in faults]
    said = host.fault  # an engine that refuses for the host's reason says nothing new
    for engine in engines:
        fault = _fault_of(engine)
        if fault is not None and (said is None or engine.verdict.detail != said):
            faults.append(fault)
        if fault is None and engine.advice is not None:
            faults.append(engine.advice)
    if not any(engine.verdict.ok for engine in engines) and not any(f.blocking for f in faults):
        faults.append(Fault("No engine is installed.", "pip install 'helexa[neuron]'"))
    faults += others
    return DoctorReport(
        host=hardware.discovery(),
        cpu=hardware.cpu,
        memory_total_mb=host.memory_total_mb,
        memory_free_mb=host.memory_free_mb,
        readings=host.readings,
        driver=hardware.driver,
        engines=tuple(engines),
        problems=tuple(fault for fault in faults if fault.blocking),
        notes=tuple(fault for fault in faults if not fault.blocking),
        node=node,
    )


def render(found: DoctorReport) -> str:
    """The report as text."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: DoctorReport) -> Iterator[str]:
    host, cpu = found.host, found.cpu
    yield f"host      {host.hostname}, {host.os} {host.kernel}"
    yield f"cpu       {cpu.model}, {cpu.cores} of {cpu.cores_total} cores usable"
    yield f"          {' '.join(cpu.instruction_sets) or 'no known instruction sets'}"
    yield f"memory    {found.memory_free_mb} MiB free of {found.memory_total_mb} MiB"
    yield f"driver    {_driver(found)}"
    readings = {reading.index: reading for reading in found.readings}
    for device in host.devices:
        reading = readings.get(device.index, DeviceReading(device.index))
        capability = f", compute {device.compute_capability}" if device.compute_capability else ""
        yield (
            f"device {device.index}  {device.kind}: {device.name}{capability}, "
            f"{reading.vram_free_mb} MiB free of {device.vram_total_mb} MiB"
        )
    for engine in found.engines:
        yield f"engine    {engine.name} {_engine(engine)}"
        if engine.runs:
            yield f"          runs {engine.runs}"
        if engine.features:
            yield f"          {engine.features.strip()}"
    if found.node:
        yield f"node      {found.node}"
    for word, faults in (("problem", found.problems), ("note", found.notes)):
        for fault in faults:
            yield f"{word:<9} {fault.reason}"
            yield f"  fix with {fault.fix}"
    if found.ok:
        yield "all well  models can be loaded on this host"


def _engine(engine: EngineFinding) -> str:
    if engine.version is None:
        return f"by {engine.program}" if engine.program else "is not installed"
    built = f", built for {', '.join(engine.built_for)}" if engine.built_for else ""
    return f"{engine.version}{built}{f', in {engine.program}' if engine.program else ''}"


def _driver(found: DoctorReport) -> str:
    if not (found.driver.module or found.driver.library or found.host.driver_version):
        return "no NVIDIA driver" + (" (a GPU is on the bus)" if found.driver.on_bus else "")
    cuda = f", CUDA {found.host.cuda_version}" if found.host.cuda_version else ""
    module, library = found.driver.module or "none", found.driver.library or "none"
    return f"NVIDIA kernel module {module}, user library {library}{cuda}"


def _fault_of(engine: EngineFinding) -> Fault | None:
    """An engine's refusal; its detail ends in the command, as ``run: …``."""
    verdict = engine.verdict
    if verdict.ok:
        return None
    reason, _, fix = (verdict.detail or verdict.reason or "").partition("run: ")
    text = reason.rstrip("; ") or f"{engine.name} is not installed"
    return Fault(f"{engine.name}: {text}.", fix or "see the operator's guide", engine.wanted)
