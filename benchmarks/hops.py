"""What a paced event costs through both hops, cortex and neuron, against one nginx.

The engine behind the node says a canned token every 10 ms; its cost does not count. Gateway and
node meet over the node's Unix socket, as they do on any one machine; ``--tcp`` turns that off.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from kit import peers, report
from kit.awake import keep_awake
from kit.gateway import key, start_cortex, wait_until_served
from kit.process import PROXY_CORE, Failed, Process, cpu_seconds
from kit.stub import MODEL, Stub, load

BAR = 2.5
STREAMS = 128
HOPS = ("cortex", "neuron")
WORDS = 64
IDLE_S = 5.0
SPARK = "helexa/spark"
NEURON_TOML = """\
port = 0
state_dir = "{state}"
local_socket = {socket}
[[default_models]]
model_id = "{model}"
[engines.llamacpp]
slots = {slots}
ctx = 4096
[admission]
max_queue_depth = 256
"""


def start_neuron(scratch: Path, *, tcp: bool) -> tuple[Process, str]:
    """The node with the costless engine; its URL."""
    config = scratch / "neuron.toml"
    state = scratch / "neuron-state"
    socket = "false" if tcp else "true"
    text = NEURON_TOML.format(state=state, socket=socket, model=SPARK, slots=STREAMS)
    config.write_text(text)
    file = Path(__file__).with_name("costless_neuron.py")
    command = [sys.executable, str(file), f"--config={config}"]
    process = Process(command, scratch / "neuron.log", core=PROXY_CORE, ready_line=True)
    return process, process.ready()["url"]


def measure(target: peers.Target, pids: list[int], model: str, seconds: float) -> dict[str, Any]:
    """One round."""
    return load(
        target.port,
        pids,
        [key(0)],
        streams=STREAMS,
        stream=True,
        seconds=seconds,
        model=model,
        body_kb=WORDS * 5 / 1024,
        max_tokens=WORDS,
        spread=WORDS / 100,
    )


def idle(processes: dict[str, Process]) -> list[report.Figure]:
    """What they cost while nobody asks them anything."""
    before = {name: cpu_seconds([-process.pid]) for name, process in processes.items()}
    time.sleep(IDLE_S)
    return [
        report.Figure(
            f"{name} at rest",
            f"{(cpu_seconds([-process.pid]) - before[name]) / IDLE_S * 1e3:.1f} ms/s",
        )
        for name, process in processes.items()
    ]


def run(rounds: int, seconds: float, *, tcp: bool, awake: bool = False) -> report.Report:
    """Measure nginx and the two hops in turns."""
    command = f"python benchmarks/hops.py --rounds {rounds} --seconds {seconds:g}"
    command += " --tcp" if tcp else ""
    name, title = "hops", "a paced event through cortex and neuron"
    if awake:
        name, title = f"{name} awake", f"{title}, on cores that do not sleep"
        command += " --awake"
    found = report.report(name, title, command)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        stub = Stub(scratch, "--gap-ms=10")
        stack.callback(stub.stop)
        nginx = peers.nginx(peers.Tools(None, scratch), stub)
        if nginx is not None:
            stack.callback(nginx.process.stop)
            wait_until_served(nginx, MODEL)
        neuron, url = start_neuron(scratch, tcp=tcp)
        stack.callback(neuron.stop)
        cortex, port = start_cortex(scratch, [url])
        stack.callback(cortex.stop)
        helexa = peers.Target("helexa", port, cortex)
        wait_until_served(helexa, SPARK)
        at_rest = idle({"cortex": cortex, "neuron": neuron})
        for core in (0, 1) if awake else ():
            stack.callback(keep_awake(core, scratch).stop)
        costs: dict[str, list[float]] = {"nginx": [], "both": [], "cortex": [], "neuron": []}
        errors = 0
        # The engine is a child of the node: only the node's own process counts.
        for _ in range(rounds):
            if nginx is not None:
                result = measure(nginx, [nginx.process.pid], MODEL, seconds)
                costs["nginx"].append(result["cpu_us_per_event"])
            result = measure(helexa, [cortex.pid, -neuron.pid], SPARK, seconds)
            costs["both"].append(result["cpu_us_per_event"])
            for hop, cost in zip(
                ("cortex", "neuron"), result["cpu_us_per_event_each"], strict=True
            ):
                costs[hop].append(cost)
            errors += int(result["errors"])
    found.figures += figures(costs, errors) + at_rest
    return found


def figures(costs: dict[str, list[float]], errors: int) -> list[report.Figure]:
    """The bar."""
    name = "cortex + neuron per paced event, to nginx"
    if not costs["nginx"]:
        return [report.not_measured(name, f"< {BAR} ×", "nginx not installed")]
    # Round by round: what else the machine does hits the two that stand beside each other.
    each = sorted(a / b for a, b in zip(costs["both"], costs["nginx"], strict=True))
    low, high = each[len(each) // 4], each[-1 - len(each) // 4]
    floor = statistics.median(costs["nginx"])
    cortex, neuron = (statistics.median(costs[name]) for name in HOPS)
    note = f"cortex {cortex:.1f} + neuron {neuron:.1f} µs; nginx {floor:.1f} µs; "
    note += f"middle half {low:.2f} to {high:.2f}"
    return [
        report.at_most(name, statistics.median(each), BAR, "×", note),
        report.at_most("errors", errors, 0, ""),
    ]


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Length of one round.")
@click.option("--tcp", is_flag=True, help="Gateway and node over loopback, as over a network.")
@click.option(
    "--awake", is_flag=True, help="Keep the cores busy with work of the lowest priority beside."
)
@report.json_option
def main(rounds: int, seconds: float, json_file: Path | None, *, tcp: bool, awake: bool) -> None:
    try:
        found = run(rounds, seconds, tcp=tcp, awake=awake)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
