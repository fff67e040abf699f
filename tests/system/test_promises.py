"""Promises of the design about tokens, through both hops and with a real engine."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from tests.neuron.system.conftest import chat, endless, raw_request, until
from tests.system.rig import CHAT, Stack


def total(exposition: str, name: str) -> int:
    """A counter summed over its labels."""
    values = [
        float(line.rpartition(" ")[2])
        for line in exposition.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    return int(sum(values))


def billed(stack: Stack) -> tuple[int, int, int]:
    """What the gateway has settled by key, shows by model, and what the node says it was."""
    ours, theirs = stack.metrics(), stack.node.client.get("/metrics").text
    kinds = ("prompt", "completion")
    shown = sum(total(ours, f"cortex_{kind}_tokens_total") for kind in kinds)
    counted = sum(total(theirs, f"neuron_{kind}_tokens_total") for kind in kinds)
    return total(ours, "cortex_spend_tokens_total"), shown, counted


def leave(stack: Stack, key: str, *, stream: bool, after_s: float) -> None:
    sock = raw_request(stack.url, endless(2000, stream=stream), authorization=f"Bearer {key}")
    time.sleep(after_s)
    sock.close()


def test_exact_metering_on_both_hops_whatever_ends_a_request(stack: Stack) -> None:
    """Promise 2: complete, cut at its cap, left midway: the gateway books the node's count."""
    rng = random.Random(3)
    before = billed(stack)
    with ThreadPoolExecutor(6) as pool:
        for index in range(24):
            key = ("sk-meter", "sk-open")[index % 2]
            if index % 3 == 0:
                wait = rng.random() * 0.2
                pool.submit(leave, stack, key, stream=index % 2 == 0, after_s=wait)
            else:
                body = endless(20 + index, stream=True) if index % 3 == 1 else chat(max_tokens=30)
                pool.submit(stack.ask, body, key)
    stack.settled("sk-meter")
    until(lambda: stack.node.in_flight() == 0)
    until(lambda: not stack.get("/admin/grants", "sk-root")["grants"])
    settled, *same = (now - then for now, then in zip(billed(stack), before, strict=True))
    assert settled > 24 * 5
    assert same == [settled, settled]
    assert total(stack.metrics(), "cortex_ledger_drift_tokens") == 0
    until(lambda: stack.node.get("/requests") == [])  # acknowledged, every one


def test_what_the_client_is_told_is_what_is_billed(stack: Stack) -> None:
    used = stack.settled("sk-meter")["spent_tokens"]
    usage = [stack.ask(chat(max_tokens=n), "sk-meter").json()["usage"] for n in (1, 7, 40)]
    told = sum(u["prompt_tokens"] + u["completion_tokens"] for u in usage)
    assert stack.settled("sk-meter")["spent_tokens"] - used == told


def test_hard_budgets_hold_under_forty_parallel_requests_with_cancels(stack: Stack) -> None:
    """Promise 1: settled never exceeds the cap, by not one token."""
    rng = random.Random(9)
    cap = int(stack.get("/v1/usage", "sk-tight")["hard_cap"])
    statuses: list[int] = []

    def one(index: int) -> None:
        if index % 4 == 0:
            leave(stack, "sk-tight", stream=True, after_s=rng.random() * 0.3)
            return
        try:
            got = stack.ask(endless(200, stream=index % 2 == 0), "sk-tight")
        except httpx.HTTPError:
            return
        statuses.append(got.status_code)

    with ThreadPoolExecutor(40) as pool:
        running = [pool.submit(one, index) for index in range(40)]
        while not all(future.done() for future in running):
            used = stack.get("/v1/usage", "sk-tight")
            assert used["spent_tokens"] + used["open_tokens"] <= cap
            time.sleep(0.05)
    for future in running:
        future.result()
    used = stack.settled("sk-tight")
    assert used["spent_tokens"] <= cap
    assert set(statuses) <= {200, 429, 503}
    # What was held and given back can be spent until no prompt fits, and then it is over.
    until(lambda: stack.ask(endless(400), "sk-tight").json().get("error", {}).get("code")
          == "insufficient_quota")  # fmt: skip
    prompt = stack.ask(endless(1)).json()["usage"]["prompt_tokens"]
    assert cap - prompt - 1 <= stack.settled("sk-tight")["spent_tokens"] <= cap
    refused = stack.ask(chat(), "sk-tight")
    assert (refused.status_code, refused.headers.get("x-should-retry")) == (429, "false")


def test_an_answer_that_meets_its_budget_says_so_in_its_last_chunk(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        got = client.post(CHAT, json=endless(5), headers={"authorization": "Bearer sk-open"})
    assert got.json()["choices"][0]["finish_reason"] == "length"
