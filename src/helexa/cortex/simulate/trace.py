"""Traces: who asked for what and when, one JSON object a line.

::

    {"at": 0.0, "model": "m", "prompt": [["system-7", 6000], ["question-1", 300]], "output": 200}

``at`` is seconds from the start, ``prompt`` the pieces of the prompt in order: a name and its
tokens. Requests whose prompts begin with the same names share that prefix. ``output`` is the
tokens of the answer. Lines are in the order of ``at``; empty ones and those that begin with
``#`` are left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import count

import msgspec

from helexa.cortex.routing.ask import Ask


class TraceError(ValueError):
    """A line cannot be read; the message says which and why."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request of a trace; see the module."""

    at: float
    model: str = "model"
    prompt: tuple[tuple[str, int], ...] = ()
    output: int = 200

    @property
    def tokens(self) -> int:
        """Of the prompt."""
        return sum(tokens for _, tokens in self.prompt)


_line = msgspec.json.Decoder(Asked).decode


def read(lines: Iterable[str]) -> Iterator[Asked]:
    """The requests of a trace.

    Raises:
        TraceError: A line is no request, or comes before the one above it.
    """
    last = 0.0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            asked = _line(line)
        except msgspec.DecodeError as error:
            raise TraceError(f"line {number}: {error}") from error
        if asked.at < last:
            raise TraceError(f"line {number}: at {asked.at} comes after {last}; sort the trace")
        if any(tokens <= 0 for _, tokens in asked.prompt) or asked.output <= 0:
            raise TraceError(f"line {number}: every piece of a prompt and the output need tokens")
        last = asked.at
        yield asked


def write(requests: Iterable[Asked]) -> Iterator[str]:
    """The lines of a trace."""
    for asked in requests:
        yield msgspec.json.encode(asked).decode() + "\n"


def ask_of(asked: Asked) -> Ask:
    """What routing knows of it: a point at the end of every piece, a token for a byte."""
    points, sizes, size, last = list[int](), list[int](), 0, b""
    for name, tokens in asked.prompt:
        last = blake2b(last + name.encode(), digest_size=8).digest()
        size += tokens
        points.append(int.from_bytes(last))
        sizes.append(size)
    seed = points[min(1, len(points) - 1)] if points else 0
    return Ask(points, sizes, size, seed, 1.0)


def customers(
    rate: float,
    seconds: float,
    *,
    seed: int = 1,
    many: int = 150,
    shared: int = 6000,
    own: int = 300,
    output: int = 200,
    arrivals_apart_s: float = 0.1,
) -> Iterator[Asked]:
    """Customers whose requests share a prefix each, arriving at random.

    They come one by one at first, ``arrivals_apart_s`` apart; ``seconds`` begin after the last.

    Args:
        rate: Requests per second, a Poisson process over all customers.
        many: Customers, equally busy.
        shared: Tokens of the prefix that a customer's requests share.
        own: Tokens of each request behind it.
    """
    rng, number, at = random.Random(seed), count(), 0.0
    names = list(range(many))
    rng.shuffle(names)

    def asked(customer: int) -> Asked:
        prompt = ((f"customer-{customer}", shared), (f"request-{next(number)}", own))
        return Asked(round(at, 6), "model", prompt, output)

    for customer in names:
        at += arrivals_apart_s
        yield asked(customer)
    end = at + seconds
    while (at := at + rng.expovariate(rate)) < end:
        yield asked(rng.randrange(many))
