"""An agent's fan-out: eight requests that may take 32,000 tokens each, and a key with 50,000.

A gateway that held what requests may take in the worst case would refuse all but one of them.
Here every one begins at once and runs until the money is really gone: grants grow while tokens
flow, and together the answers cost the cap, to the token. The engine is the fake one, which
speaks as fast as it can; gateway, node and ledger are the real ones.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
from kit import report
from kit.gateway import key, start_cortex
from kit.process import Failed, Process, free_port

from helexa.spark import gguf_path

REQUESTS, TOKENS, CAP = 8, 32_000, 50_000
CONTEXT = 66_000
_UINT32 = 4
START_S, ANSWER_S = 120.0, 550.0
NEURON = """
port = {port}
state_dir = "{folder}/state"
[[default_models]]
model_id = "{model}"
[engines.llamacpp]
slots = 8
ctx = {context}
[context_limit]
output_reserve_tokens = {output}
[admission]
reserve_seats = 0
"""


class Answer(NamedTuple):
    """What became of one request; tokens."""

    status: int
    prompt: int
    output: int
    finish: str


def deep_model(folder: Path) -> Path:
    """The built-in model under another name, whose file says that it was trained to go deeper."""
    found, name = bytearray(gguf_path().read_bytes()), b".context_length"
    at = found.index(name) + len(name)  # then the type: 4 is an unsigned number of 32 bits
    kind, before = struct.unpack_from("<II", found, at)
    if kind != _UINT32 or before > CONTEXT:
        raise Failed(f"the built-in model says {before} of kind {kind}")
    struct.pack_into("<I", found, at + 4, CONTEXT)
    path = folder / "deep.gguf"
    path.write_bytes(found)
    return path


def node(folder: Path, model: Path) -> tuple[Process, str]:
    """A node with the fake engine, and its address."""
    port, config = free_port(), folder / "neuron.toml"
    text = NEURON.format(
        port=port, folder=folder, model=model, context=CONTEXT, output=CONTEXT // 2
    )
    config.write_text(text)
    program = Path(__file__).with_name("slow_neuron.py")
    command = [sys.executable, str(program), "--config", str(config)]
    process = Process(command, folder / "neuron.log", ready_line=True)
    process.ready(START_S)
    return process, f"http://127.0.0.1:{port}"


def get(port: int, path: str) -> Any:
    """A management answer, asked for with the only key."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    request.add_header("authorization", f"Bearer {key(0)}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def ask(port: int, model: str, index: int) -> Answer:
    """One request to its end; every other one streams."""
    stream = index % 2 == 0
    body = {
        "model": model, "stream": stream, "max_tokens": TOKENS, "fake": {"count": TOKENS},
        "messages": [{"role": "user", "content": f"Part {index}."}],
    }  # fmt: skip
    if stream:
        body["stream_options"] = {"include_usage": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode()
    )
    request.add_header("authorization", f"Bearer {key(0)}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            raw = answer.read()
    except urllib.error.HTTPError as error:
        return Answer(error.code, 0, 0, error.read().decode(errors="replace")[:200])
    events = [raw]
    if stream:
        events = [line[6:] for line in raw.splitlines() if line.startswith(b"data: {")][-4:]
    chunks = [json.loads(event) for event in events]
    usage = next(chunk["usage"] for chunk in chunks if chunk.get("usage"))
    why = next((chunk["helexa"]["finish"] for chunk in chunks if chunk.get("helexa")), "none")
    return Answer(200, usage["prompt_tokens"], usage["completion_tokens"], why)


def figures(answers: Sequence[Answer], spent: int, took_s: float) -> list[report.Figure]:
    """What must be true of them."""
    whole = [answer for answer in answers if answer.status == 200]
    for answer in answers:
        click.echo(f"{answer}", err=True)
    told = sum(answer.prompt + answer.output for answer in whole)
    cut = sum(answer.finish == "budget" for answer in whole)
    note = f"{min((a.output for a in whole), default=0):,} to "
    note += f"{max((a.output for a in whole), default=0):,} output tokens each, in {took_s:.1f} s"
    return [
        report.at_least("requests that ran", len(whole), REQUESTS, "", note),
        report.at_least("fewest output tokens", min(a.output for a in answers), 1, ""),
        report.at_least(
            "answers cut by the budget", cut, REQUESTS, "", "and none by anything else"
        ),
        report.at_least("tokens spent", spent, CAP, "", f"{spent:,} of {CAP:,}"),
        report.at_most("tokens beyond the cap", max(0, spent - CAP), 0, ""),
        report.at_most("answers' own counts less what was billed", abs(told - spent), 0, ""),
    ]


def run() -> list[report.Figure]:
    """Start everything, ask, and compare."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        path = deep_model(folder)
        process, url = node(folder, path)
        stack.callback(process.stop)
        gateway, port = start_cortex(folder, [url], core=None, keys=1, cap=CAP)
        stack.callback(gateway.stop)
        _wait(lambda: bool(_loaded(port)), "the model to load")
        model = _loaded(port)[0]["id"]
        start = time.monotonic()
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda index: ask(port, model, index), range(REQUESTS)))
        took = time.monotonic() - start
        _wait(lambda: get(port, "/v1/usage")["open_tokens"] == 0, "everything to be settled")
        return figures(answers, get(port, "/v1/usage")["spent_tokens"], took)


def _loaded(port: int) -> list[dict[str, Any]]:
    return [model for model in get(port, "/v1/models")["data"] if model["loaded"]]


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.HTTPError):  # not known yet
            if done():
                return
        time.sleep(0.1)
    raise Failed(f"waited {START_S:.0f} s for {what}")


@click.command(help=__doc__)
@report.json_option
def main(json_file: Path | None) -> None:
    made = report.report("fan_out", "an agent's fan-out", "python benchmarks/fan_out.py")
    try:
        made.figures += run()
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(made, json_file)


if __name__ == "__main__":
    main()
