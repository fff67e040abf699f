"""What a 400 KB prompt adds to the first byte: a small and a large body, in turns.

Both go straight to the stub and through the gateway; the medians of many turns count.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from kit import report
from kit.gateway import cortex, key, wait_until_served
from kit.peers import Tools
from kit.process import Failed
from kit.stub import MODEL, Stub
from load import body_of

BAR_MS = 3.0
LARGE_KB = 400


class Asker:
    """One kept connection that asks and takes the time until the first event."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key(0)}"}

    def first_event_ms(self, body: bytes) -> float:
        """Milliseconds from before the request is sent to the first byte of the body."""
        start = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", body, self._headers)
        answer = self._connection.getresponse()
        answer.read(1)
        took = time.perf_counter() - start
        answer.read()
        if answer.status != 200:
            raise Failed(f"status {answer.status}")
        return took * 1e3


def run(turns: int) -> report.Report:
    """Measure."""
    found = report.report(
        "prompt",
        f"what a {LARGE_KB} KB prompt adds to the first byte",
        f"python benchmarks/prompt.py --turns {turns}",
    )
    small, large = (
        body_of(MODEL, stream=True, usage=False, max_tokens=1, kb=kb) for kb in (0, LARGE_KB)
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        stub = Stub(scratch, "--tokens=1")
        stack.callback(stub.stop)
        target = cortex(Tools(None, scratch), stub)
        assert target is not None
        stack.callback(target.process.stop, 1.0)
        wait_until_served(target)
        askers = {"stub": Asker(stub.ports[0]), "helexa": Asker(target.port)}
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(turns):
            for name, asker in askers.items():
                for size, body in (("small", small), ("large", large)):
                    times.setdefault((name, size), []).append(asker.first_event_ms(body))
    found.figures += figures(times)
    return found


def figures(times: dict[tuple[str, str], list[float]]) -> list[report.Figure]:
    """The bar, and where the time goes."""
    median = {place: statistics.median(values) for place, values in times.items()}
    added = median["helexa", "large"] - median["helexa", "small"]
    straight = median["stub", "large"] - median["stub", "small"]
    note = (
        f"{median['helexa', 'small']:.2f} to {median['helexa', 'large']:.2f} ms; sending it "
        f"straight to the stub adds {straight:.2f} ms"
    )
    return [report.at_most(f"first byte, {LARGE_KB} KB more", added, BAR_MS, "ms", note)]


@click.command(help=__doc__)
@click.option("--turns", default=100, show_default=True)
@report.json_option
def main(turns: int, json_file: Path | None) -> None:
    try:
        found = run(turns)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
