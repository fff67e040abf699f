"""What was used is told to the token, by whom and where, also after a restart."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.neuron.system.conftest import SPARK, chat, endless, until
from tests.system.rig import CHAT, MODELS, Stack

from helexa.cli.usage import price_words

KEY_ROWS = "/admin/usage?group_by=key,model,node,day"


@pytest.fixture(scope="module")
def used(stack: Stack) -> dict[str, dict[str, int]]:
    """Tokens by key, added up from the answers that clients got."""
    told: dict[str, dict[str, int]] = {}
    for key, count in (("sk-meter", 3), ("sk-open", 2)):
        sums = told.setdefault(key.removeprefix("sk-"), {"prompt": 0, "completion": 0, "n": 0})
        for number in range(count):
            body = chat(f"Tell me about {number}.", max_tokens=5 + number)
            usage = stack.ask(body, key).json()["usage"]
            sums["prompt"] += usage["prompt_tokens"]
            sums["completion"] += usage["completion_tokens"]
            sums["n"] += 1
    return told


def report(stack: Stack, path: str) -> Any:
    return stack.get(path, "sk-root")


def settled(stack: Stack, requests: int) -> Any:
    """The report once so many requests are in it."""

    def enough() -> Any:
        found = report(stack, KEY_ROWS)
        return found["total"]["requests"] >= requests and found

    return until(enough)


def test_a_report_says_what_the_clients_were_told(
    stack: Stack, used: dict[str, dict[str, int]]
) -> None:
    rows = [row for row in settled(stack, 5)["rows"] if row["key"] in used]
    assert {r["key"]: (r["prompt_tokens"], r["completion_tokens"], r["requests"])
            for r in rows} == {
        key: (sums["prompt"], sums["completion"], sums["n"]) for key, sums in used.items()
    }  # fmt: skip
    for row in rows:
        assert (row["model"], row["node"]) == (SPARK, "one")
        assert row["day"] == datetime.now(UTC).date().isoformat()
    single = report(stack, "/admin/usage/requests?key=meter")["requests"]
    assert len(single) == used["meter"]["n"]
    assert sum(row["completion"] for row in single) == used["meter"]["completion"]
    assert stack.settled("sk-meter")["spent_tokens"] == (
        used["meter"]["prompt"] + used["meter"]["completion"]
    )


def test_a_client_that_leaves_is_in_the_report_with_what_its_node_counted(
    stack: Stack, used: dict[str, dict[str, int]]
) -> None:
    before = settled(stack, 5)["total"]
    headers = {"authorization": "Bearer sk-tight"}
    with (
        httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client,
        client.stream("POST", CHAT, json=endless(400, stream=True)) as answer,
    ):
        lines = answer.iter_lines()
        while '"content":"' not in next(lines):
            pass
    found = settled(stack, before["requests"] + 1)
    [row] = [r for r in found["rows"] if r["key"] == "tight"]
    spent = stack.settled("sk-tight")["spent_tokens"]
    assert row["total_tokens"] == spent > 0


def test_costs_come_from_the_catalogue_and_the_command_shows_them(
    stack: Stack, used: dict[str, dict[str, int]]
) -> None:
    def costs() -> Any:
        rows = report(stack, "/admin/usage?group_by=key")["rows"]
        return {r["key"]: r["cost_usd"] for r in rows}

    settled(stack, 5)
    assert costs()["meter"] is None
    price = MODELS.replace(
        'harness = "llamacpp"', 'harness = "llamacpp"\ncost = { input = 1000, output = 2000 }'
    )
    (stack.cortex.folder / "models.toml").write_text(price)
    until(lambda: costs()["open"] is not None)
    sums = used["open"]
    # What was cached is no cheaper: the catalogue has no price for it.
    expected = (sums["prompt"] * 1000 + sums["completion"] * 2000) / 1e6
    assert costs()["open"] == pytest.approx(expected)
    table = typed(stack, "usage", "--by", "key,model", "--chart")
    assert price_words(expected, 0) in table
    assert "█" in table
    rows = list(csv.DictReader(io.StringIO(typed(stack, "usage", "--csv"))))
    assert {row["key"] for row in rows} >= {"open", "meter"}
    mine = typed(stack, "usage", "--mine", key="sk-meter")
    assert ["cap", "of", "spent", "left"] in [line.split() for line in mine.splitlines()]
    assert "1m   key" in mine


def typed(stack: Stack, *words: str, key: str = "sk-root") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", *words],
        env={**os.environ, "HELEXA_ENDPOINT": stack.url, "HELEXA_KEY": key, "PYTHONUTF8": "1"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_usage_and_keys_outlive_the_gateway(stack: Stack, used: dict[str, dict[str, int]]) -> None:
    before = settled(stack, 5)
    secret = typed(stack, "keys", "create", "acme", "--id", "lasting", "--cap", "1m").strip()
    spent = stack.settled("sk-meter")["spent_tokens"]
    stack.cortex.stop(signal.SIGKILL)
    stack.cortex.start()
    stack.warm()
    after = report(stack, KEY_ROWS)
    # The start has written the catalogue anew, without prices.
    priced = ("cost_usd", "unpriced_tokens")
    then, now = (
        [{n: v for n, v in r.items() if n not in priced} for r in found["rows"] if r["key"] in used]
        for found in (before, after)
    )
    assert now == then
    assert stack.settled("sk-meter")["spent_tokens"] == spent
    assert stack.get("/v1/usage", secret)["hard_cap"] == 1_000_000
    assert json.loads(typed(stack, "keys", "show", "lasting", "--json"))["state"] == "active"
