"""``make demo``: start everything, ask one question through the official SDK, show the times.

Exit status 0 means that a real model answered through the whole stack.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

QUESTION = "What is the capital of France?"
START_SECS = 60.0
STAGES = ("check", "queue", "load", "connect", "prefill", "decode")


def start() -> tuple[subprocess.Popen[str], dict[str, Any], float]:
    """``helexa up`` on free ports: the process, its ready line, seconds until then."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "helexa.cli", "up", "--log-level", "warning"]
    child = subprocess.Popen(
        [*command, "--port", "0", "--neuron-port", "0", "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=None if "--verbose" in sys.argv else subprocess.PIPE,
        text=True,
    )
    line = ""
    if child.stdout is not None and select.select([child.stdout], [], [], START_SECS)[0]:
        line = child.stdout.readline()
    if not line:
        child.terminate()
        _, words = child.communicate(timeout=60)
        sys.exit(f"helexa up did not start:\n{words or ''}")
    return child, json.loads(line), time.perf_counter() - began


def ask(url: str, model: str) -> dict[str, Any]:
    """Stream one answer to the terminal; what was measured on the way."""
    from openai import OpenAI  # noqa: PLC0415 - a second, while the stack starts

    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client.chat.completions.with_streaming_response.create(
        model=model,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=8,
    ) as warm:
        warm.read()
    sent = time.perf_counter()
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        max_tokens=200,
    )
    headers = {k.lower(): v for k, v in stream.response.headers.items()}
    first = None
    usage: dict[str, Any] = {}
    words = ""
    print(f"\n  > {QUESTION}\n  < ", end="")
    for chunk in stream:
        if chunk.usage is not None:
            usage = chunk.usage.to_dict() | {"timings": (chunk.model_extra or {}).get("timings")}
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.perf_counter()
                words += choice.delta.content
                print(choice.delta.content, end="", flush=True)
    done = time.perf_counter()
    print("\n")
    if first is None:
        sys.exit("the model answered nothing")
    return {
        "answer": words,
        "first_ms": (first - sent) * 1000,
        "total_ms": (done - sent) * 1000,
        "usage": usage,
        "request_id": headers.get("x-request-id", ""),
        "server_timing": headers.get("server-timing", ""),
    }


def timeline(url: str, request_id: str) -> Any:
    """What the gateway wrote down about the request, or None."""
    try:
        with urllib.request.urlopen(f"{url}/v1/requests/{request_id}", timeout=5) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def report(started: float, measured: dict[str, Any], line: dict[str, Any]) -> None:
    """Where the time went."""
    usage = measured["usage"]
    print(f"  ready after            {started:8.2f} s")
    print(f"  first token            {measured['first_ms']:8.1f} ms")
    print(f"  whole answer           {measured['total_ms']:8.1f} ms")
    if usage:
        print(f"  prompt tokens          {usage['prompt_tokens']:8d}")
        print(f"  completion tokens      {usage['completion_tokens']:8d}")
    timings = usage.get("timings") or {}
    if timings.get("predicted_ms"):
        rate = timings["predicted_n"] / timings["predicted_ms"] * 1000
        print(f"  engine decodes at      {rate:8.0f} tokens/s")
    if measured["server_timing"]:
        print(f"  server-timing          {measured['server_timing']}")
    noted = timeline(line["url"], measured["request_id"]) if measured["request_id"] else None
    for stage, spent in (noted or {}).get("ms", {}).items():
        if stage in STAGES:
            print(f"  {f'  of which {stage}':<22} {spent:8.1f} ms")


def main() -> int:
    """Everything, and the exit status."""
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"  # the SDK would ask a proxy for loopback
    child, line, started = start()
    try:
        report(started, ask(line["url"], line["model"]), line)
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=90)
    if child.returncode:
        print(f"helexa up ended with status {child.returncode}", file=sys.stderr)
    else:
        print("\nStopped cleanly. `make up` keeps it running.")
    return int(child.returncode)


if __name__ == "__main__":
    sys.exit(main())
