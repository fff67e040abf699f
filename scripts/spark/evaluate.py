"""Run the held-out evaluation through an OpenAI-compatible endpoint and print a table.

    python scripts/spark/evaluate.py --url http://127.0.0.1:8080/v1 [--key K] [--json]

Answers are greedy (temperature 0). Needs nothing but the standard library. `--show` prints what
went wrong. The exit status is 1 when a task stays under `--bar` percent.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import SUITES, Case, suite


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    key: str
    model: str

    def complete(self, case: Case) -> dict[str, Any]:
        """Return the first choice; an HTTP error comes back as a choice with finish `error`."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": case.messages,
            "temperature": 0,
            "max_tokens": case.max_tokens,
            "chat_template_kwargs": {"enable_thinking": case.thinking},
        }
        if case.tools:
            body["tools"] = [tool.schema() for tool in case.tools]
        if case.response_format:
            body["response_format"] = case.response_format
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(
            f"{self.url}/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                choice: dict[str, Any] = json.load(answer)["choices"][0]
                return choice
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            return {"message": {"content": text}, "finish_reason": "error"}


def run(endpoint: Endpoint, name: str, jobs: int, show: bool) -> dict[str, Any]:
    cases = suite(name)
    with ThreadPoolExecutor(jobs) as pool:
        choices = list(pool.map(endpoint.complete, cases))
    right = 0
    for case, choice in zip(cases, choices, strict=True):
        good = case.check(choice["message"], choice.get("finish_reason") or "")
        right += good
        if show and not good:
            asked, told = (
                json.dumps(part, ensure_ascii=False) for part in (case.messages[-1], choice)
            )
            print(f"{name}: {asked}\n    -> {told}", file=sys.stderr)
    percent = round(100 * right / len(cases), 1)
    return {"task": name, "n": len(cases), "correct": right, "percent": percent}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| task | n | correct | % |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {r['task']} | {r['n']} | {r['correct']} | {r['percent']} |" for r in rows]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--key", default="none")
    parser.add_argument("--model", default="helexa/spark")
    parser.add_argument("--task", action="append", choices=list(SUITES), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="requests at a time")
    parser.add_argument("--bar", type=float, default=90.0)
    parser.add_argument("--out", type=Path, help="also write the table to a file")
    parser.add_argument("--json", action="store_true", help="print JSON lines, not a table")
    parser.add_argument("--show", action="store_true", help="print wrong answers to stderr")
    return parser.parse_args()


def main() -> int:
    options = parse()
    endpoint = Endpoint(options.url.rstrip("/"), options.key, options.model)
    rows = [run(endpoint, name, options.jobs, options.show) for name in options.task or SUITES]
    text = "\n".join(json.dumps(row) for row in rows) if options.json else table(rows)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return int(any(row["percent"] < options.bar for row in rows))


if __name__ == "__main__":
    sys.exit(main())
