"""Hard budgets under fire: parallel requests of keys near their caps, while everything is killed.

Every round asks 1,000 requests at once with 50 keys that have tokens for a part of them. Some
clients leave in the middle, some read slowly; the engine, the node and the gateway are ended with
``kill -9`` at random moments and start again where they were. Afterwards no key may have spent a
token beyond its cap, every answer's own count must be what was billed, the gateway's sums must be
those of the nodes' records, and nothing may stay held beyond its lease.

What a node had computed for an attempt of which the gateway has relayed nothing is not billed, by
the gateway's own books, and counted as discarded; of everything else a difference is drift.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from kit import report
from kit.clients import Clients
from kit.mortal import SPARK, Stack
from kit.process import Failed, raise_descriptor_limit

LEASE_S = 30.0
"""Longer than a busy machine needs to start a node again: one that stays away longer is settled
at the last count that was heard, which is not what its answers said."""


@dataclass
class Found:
    """What was wrong in all rounds, besides what the clients saw; tokens and seconds."""

    overshoot: int = 0
    drift: float = 0
    discarded: float = 0
    longest_hold: float = 0
    kills: int = 0


async def shoot(stack: Stack, clients: Clients, found: Found) -> None:
    """One kill of each kind, at random moments."""

    async def later(name: str) -> None:
        await asyncio.sleep(1 + clients.rng.random() * 5)
        if name == "gateway":
            clients.killed.append(time.monotonic())
            await stack.gateway.kill()
            clients.killed.append(time.monotonic())
        elif name == "node":
            await stack.node.kill()
        else:
            await stack.kill_engine()
        found.kills += 1

    await asyncio.gather(*(later(name) for name in ("gateway", "node", "engine")))


async def round_of(
    stack: Stack, keys: Sequence[str], requests: int, clients: Clients, found: Found
) -> None:
    """Ask, shoot, and hold the books against what was seen."""
    clients.killed.clear()
    asking = [clients.ask(clients.rng.choice(keys)) for _ in range(requests)]
    await asyncio.gather(shoot(stack, clients, found), *asking)
    found.longest_hold = max(found.longest_hold, await until_free(stack, keys, clients))
    await asyncio.sleep(0.5)  # the last batch of the ledger, the last events of the node
    for key in keys:
        used = await asyncio.to_thread(stack.get, "/v1/usage", key)
        found.overshoot += max(0, used["spent_tokens"] - stack.caps[key])
    found.drift += abs(await asyncio.to_thread(stack.metric, "cortex_ledger_drift_tokens"))
    found.discarded += await asyncio.to_thread(stack.metric, "cortex_discarded_tokens_total")
    unproven = stack.unproven()
    if unproven:
        clients.faults.append(f"not proven: {unproven}")
    billed = stack.billed()
    for request, told in clients.told.items():
        if billed.get(request, 0) != told:
            clients.faults.append(f"{request}: told {told}, billed {billed.get(request)}")
    clients.told.clear()


async def until_free(stack: Stack, keys: Sequence[str], clients: Clients) -> float:
    """Seconds until nothing is held for anybody; it is a fault if that is longer than a lease."""
    began = time.monotonic()
    while held := await asyncio.to_thread(stack.held, keys):
        if time.monotonic() - began > LEASE_S + 15:
            clients.faults.append(f"still held: {held}")
            for line in (clients.faults[-1], *await asyncio.to_thread(stack.evidence)):
                click.echo(line, err=True)
            break
        await asyncio.sleep(0.25)
    return time.monotonic() - began


async def run(rounds: int, requests: int, keys: int, seed: int, folder: Path) -> report.Report:
    """Round after round."""
    command = f"python benchmarks/budgets.py --rounds {rounds} --requests {requests}"
    made = report.report("budgets", "hard budgets while everything is killed", command)
    raise_descriptor_limit()
    rng = random.Random(seed)
    names = [[f"sk-{number}-{index}" for index in range(keys)] for number in range(rounds)]
    # A prompt has about 30 tokens: from a key that affords none to one that affords most.
    caps = {name: rng.randrange(20, 100 * requests // keys) for each in names for name in each}
    stack, found = Stack(folder, caps, LEASE_S), Found()
    clients = Clients(SPARK, stack.ports[0], rng)
    try:
        stack.start()
        await stack.warm()
        for number in range(rounds):
            began, before = time.monotonic(), clients.ends.copy()
            await round_of(stack, names[number], requests, clients, found)
            ends = ", ".join(f"{n} {end}" for end, n in (clients.ends - before).most_common())
            state = f"{len(clients.faults)} faults so far, " if clients.faults else ""
            took = time.monotonic() - began
            click.echo(f"round {number + 1}/{rounds}: {took:.0f} s, {state}{ends}", err=True)
    finally:
        stack.stop()
    for fault in clients.faults[:10]:
        click.echo(fault, err=True)
    ends_seen = [[end, f"{n}"] for end, n in clients.ends.most_common()]
    made.tables.append(report.TableData("Answers", ["", "n"], ends_seen))
    made.figures += figures(found, len(clients.faults), rounds)
    return made


def figures(found: Found, faults: int, rounds: int) -> list[report.Figure]:
    """The bars."""
    discarded = f"besides {found.discarded:.0f} tokens that were computed for nobody"
    lease = f"after the last answer; the lease is {LEASE_S:.0f} s"
    return [
        report.at_most("tokens beyond a cap", found.overshoot, 0, ""),
        report.at_most("drift", found.drift, 0, "tokens", discarded),
        report.at_most("longest hold", found.longest_hold, LEASE_S + 5, "s", lease),
        report.at_most("answers or books that are wrong", faults, 0, ""),
        report.at_least("processes killed", found.kills, 3 * rounds, ""),
    ]


@click.command(help=__doc__)
@click.option("--rounds", default=20, show_default=True)
@click.option("--requests", default=1000, show_default=True, help="In parallel, per round.")
@click.option("--keys", default=50, show_default=True, help="Per round.")
@click.option("--seed", default=1, show_default=True)
@report.json_option
def main(rounds: int, requests: int, keys: int, seed: int, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            made = uvloop.run(run(rounds, requests, keys, seed, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(made, json_file)


if __name__ == "__main__":
    main()
