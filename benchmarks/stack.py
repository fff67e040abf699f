"""The whole stack with the built-in model: first token and tokens per second for one client."""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import click
from kit import report
from kit.household import start_household
from kit.process import Failed

FIRST_BAR_MS, RATE_BAR = 30, 500
MODEL = "helexa/spark"


class Answer(NamedTuple):
    """One streamed answer: milliseconds to the first token, tokens, seconds from it to the end."""

    first_ms: float
    tokens: int
    seconds: float


def ask(connection: http.client.HTTPConnection, text: str, tokens: int) -> Answer:
    """Stream one answer of exactly ``tokens`` tokens.

    Raises:
        Failed: Another status than 200, or no usage at the end.
    """
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    start = time.perf_counter()
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    first, usage = 0.0, None
    for line in answer:
        if b'"content":"' in line and not first:
            first = time.perf_counter()
        if b'"usage":{' in line:
            usage = json.loads(line.removeprefix(b"data: "))["usage"]
    done = time.perf_counter()
    if answer.status != 200 or usage is None or not first:
        raise Failed(f"status {answer.status}, first token at {first}, usage {usage}")
    return Answer((first - start) * 1e3, usage["completion_tokens"], done - first)


def run(count: int) -> report.Report:
    """Short answers for the first token, long ones for the rate; nothing is asked twice."""
    about = "cortex, neuron and engine with helexa/spark, one client"
    found = report.report("stack", about, f"python benchmarks/stack.py --count {count}")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        household = start_household(scratch)
        stack.callback(household.process.stop, 20.0)
        connection = http.client.HTTPConnection("127.0.0.1", household.port, timeout=60)
        ask(connection, "Hello", 4)
        firsts = [ask(connection, f"Repeat: {n} apple", 8).first_ms for n in range(count)]
        longs = [ask(connection, f"Count from {n} to 30.", 512) for n in range(max(5, count // 10))]
    first = statistics.median(firsts)
    rates = [answer.tokens / answer.seconds for answer in longs]
    note = f"p99 {sorted(firsts)[int(len(firsts) * 0.99)]:.1f} ms"
    found.figures += [
        report.at_most("first token, median", first, FIRST_BAR_MS, "ms", note),
        report.at_least("streaming, median", statistics.median(rates), RATE_BAR, "tokens/s"),
    ]
    return found


@click.command(help=__doc__)
@click.option("--count", default=100, show_default=True, help="Short answers.")
@report.json_option
def main(count: int, json_file: Path | None) -> None:
    try:
        found = run(count)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
