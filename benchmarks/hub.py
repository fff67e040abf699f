"""A gigabyte from a hub: its speed beside curl's and the hub library's own, its memory, and how
long the node's loop stands still meanwhile.

The hub is the fake one, in its own process on loopback. Ours is what a load does: ask what there
is, check the room, fetch in a process of its own, resume-able, with its SHA-256. curl writes the
same file and checks nothing. Runs take turns; each figure is the lower quartile of its runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from kit import report
from kit.process import Failed

from helexa.core.logging import get_logger
from helexa.neuron.sources.hub.api import HubApi
from helexa.neuron.sources.hub.cache import Cache
from helexa.neuron.sources.hub.hub import Hub

MODEL, FILE = "org/large-GGUF", "large-Q8_0.gguf"
SPEED_BAR, MEMORY_BAR_MB = 0.8, 100
LIBRARY_RUNS = 2
"""It takes several times as long, and is here for comparison only."""
LIBRARY = """
import sys
from huggingface_hub import hf_hub_download
hf_hub_download(sys.argv[1], sys.argv[2], endpoint=sys.argv[3], cache_dir=sys.argv[4], token=False)
"""


class Run(msgspec.Struct, frozen=True):
    """One download: seconds, CPU seconds of its processes, their peak (MiB), the loop's worst
    pause (milliseconds)."""

    wall_s: float
    cpu_s: float
    peak_mb: float = 0.0
    pause_ms: float = 0.0


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], tuple[float, float]]) -> Run:
    """``work`` gives peak and pause; processes it started have ended."""
    cpu, begun = children_cpu_s(), time.perf_counter()
    peak, pause = work()
    return Run(time.perf_counter() - begun, children_cpu_s() - cpu, peak, pause)


class Peak:
    """The highest resident memory of this process's children, read while they run."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        mine = os.getpid()
        while not self._over.wait(0.01):
            for task in Path(f"/proc/{mine}/task").iterdir():
                for pid in _text(task / "children").split():
                    status = _text(Path(f"/proc/{pid}/status"))
                    if "VmHWM:" in status and "fetching.worker" in _text(
                        Path(f"/proc/{pid}/cmdline")
                    ):
                        self.mb = max(self.mb, int(status.split("VmHWM:")[1].split()[0]) / 1024)

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self.mb


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


async def fetched(endpoint: str, cache: Path) -> float:
    """Fetch as a node does; the loop's worst pause (milliseconds)."""
    source = Hub(
        HubApi("hf", endpoint, "HF_TOKEN", lambda: None),
        Cache(cache),
        get_logger(),
        clock=time.monotonic,
    )
    worst = 0.0

    async def beat() -> None:
        nonlocal worst
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - begun - 0.005)

    beating = asyncio.create_task(beat())
    listing = await source.describe(MODEL, None)
    await source.fetch(listing, lambda _: None)
    beating.cancel()
    return worst * 1e3


def ours(endpoint: str, folder: Path) -> tuple[float, float]:
    peak = Peak()
    pause = asyncio.run(fetched(endpoint, folder / "cache"))
    return peak.end(), pause


def curl(endpoint: str, folder: Path) -> tuple[float, float]:
    url = f"{endpoint}/{MODEL}/resolve/main/{FILE}"
    folder.mkdir(exist_ok=True)
    subprocess.run(["curl", "-sSfL", "-o", str(folder / "file"), url], check=True)
    return 0.0, 0.0


def library(endpoint: str, folder: Path) -> tuple[float, float]:
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    subprocess.run(
        [sys.executable, "-c", LIBRARY, MODEL, FILE, endpoint, str(folder)],
        check=True,
        env=os.environ | quiet,
    )
    return 0.0, 0.0


def start_hub(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The fake hub over ``folder``."""
    command = [sys.executable, "-m", "helexa.neuron.sources.fake", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    line = process.stdout.readline() if process.stdout is not None else b""
    if not line:
        process.kill()
        raise Failed("the fake hub did not start")
    return process, json.loads(line)["url"]


def write_model(path: Path, megabytes: int) -> None:
    """``megabytes`` million bytes of noise, a piece of it again and again."""
    path.parent.mkdir(parents=True)
    piece = os.urandom(1_000_000)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(piece)


def measure(rounds: int, megabytes: int, place: Path | None) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {"helexa": [], "curl": [], "huggingface_hub": []}
    ways = {"helexa": ours, "curl": curl, "huggingface_hub": library}
    with tempfile.TemporaryDirectory(prefix="helexa-bench-", dir=place) as root:
        write_model(Path(root) / "hub" / MODEL / FILE, megabytes)
        process, endpoint = start_hub(Path(root) / "hub")
        try:
            for number in range(rounds + 1):  # the first one warms up: digests, byte code
                for name, way in ways.items():
                    if way is library and number > LIBRARY_RUNS:
                        continue
                    folder = Path(root) / name
                    run = timed(lambda way=way, folder=folder: way(endpoint, folder))  # type: ignore[misc]
                    shutil.rmtree(folder)
                    if number:
                        runs[name].append(run)
        finally:
            process.terminate()
            process.wait()
    return runs


def quartile(values: list[float]) -> float:
    """The lower one."""
    return statistics.quantiles(values, n=4)[0] if len(values) > 1 else values[0]


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True)
@click.option("--megabytes", default=1000, show_default=True)
@click.option("--place", type=click.Path(path_type=Path), help="Folder for the files.")
@report.json_option
def main(rounds: int, megabytes: int, place: Path | None, json_file: Path | None) -> None:
    found = report.report(
        "hub", "a gigabyte from a hub", f"python benchmarks/hub.py --rounds {rounds}"
    )
    try:
        runs = measure(rounds, megabytes, place)
    except (Failed, subprocess.CalledProcessError) as error:
        raise click.ClickException(str(error)) from error
    wall = {name: quartile([run.wall_s for run in of]) for name, of in runs.items()}
    cpu = {name: quartile([run.cpu_s for run in of]) for name, of in runs.items()}
    rows = [
        [name, f"{megabytes / wall[name]:.0f}", f"{wall[name]:.2f}", f"{cpu[name]:.2f}"]
        for name in runs
    ]
    title = f"{megabytes} MB over loopback, {rounds} runs each in turns, lower quartiles"
    found.tables.append(report.TableData(title, ["", "MB/s", "wall s", "CPU s"], rows))
    peak = max(run.peak_mb for run in runs["helexa"])
    pauses = statistics.median(run.pause_ms for run in runs["helexa"])
    found.figures += [
        report.at_least(
            "speed, of curl's", wall["curl"] / wall["helexa"], SPEED_BAR, "",
            "resumable and verified; curl checks nothing",
        ),
        report.Figure("CPU time, of curl's", f"{cpu['helexa'] / cpu['curl']:.2f}",
                      note="ours hashes what it receives"),
        report.at_most("memory of the downloading process", peak, MEMORY_BAR_MB, "MB", "its peak"),
        report.Figure("longest pause of the node's loop", f"{pauses:.1f} ms",
                      note="median of the runs' worst; two cores, three busy processes"),
    ]  # fmt: skip
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
