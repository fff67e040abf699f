"""``helexa neuron`` that also writes down what its engine said, to compare it with what is billed.

The node is the real one. Every byte the engine sends is kept beside the request, and when the
request is settled one line of JSON goes to the file named by ``HELEXA_TAP``: the record, and the
engine's own counts read from those bytes by other means than the node's cleaner.
"""

# ruff: noqa: SLF001  # it listens where a request ends

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from helexa.cli import main
from helexa.neuron.exchange import closing, delivery
from helexa.neuron.exchange.exchange import Exchange
from helexa.neuron.stream import AnswerStream, Step

PREDICTED = re.compile(rb'"index":(\d+),"delta".*?"predicted_n":(\d+)')
COMPLETION = re.compile(rb'"completion_tokens":(\d+)')
PROMPT = re.compile(rb'"prompt_tokens":(\d+)')
PROCESSED = re.compile(rb'"processed":(\d+)')


class Tapped(AnswerStream):
    """Keeps what the engine sent."""

    __slots__ = ("raw",)

    def push(self, data: bytes) -> Step:
        """As before, and remember."""
        self._keep(data)
        return super().push(data)

    def splice(self, chunk: bytes) -> bytes:
        """As before, and remember what was inside the chunk."""
        out = super().splice(chunk)
        if out:
            self._keep(chunk[chunk.index(b"\n") + 1 : -2])
        return out

    def _keep(self, data: bytes) -> None:
        kept: bytearray | None = getattr(self, "raw", None)
        if kept is None:
            kept = self.raw = bytearray()
        kept += data


def engines_words(raw: bytes) -> dict[str, Any]:
    """The engine's own counts in the whole events of ``raw``."""
    whole = raw[: raw.rfind(b"\n\n") + 2]
    per_choice: dict[bytes, int] = {}
    for event in whole.split(b"\n\n"):
        for index, taken in PREDICTED.findall(event):
            per_choice[index] = max(per_choice.get(index, 0), int(taken))
    final = [int(n) for n in COMPLETION.findall(whole)]
    return {
        "taken": sum(final) if final else sum(per_choice.values()),
        "final": bool(final),
        "prompt": max(map(int, PROMPT.findall(whole)), default=0),
        "processed": max(map(int, PROCESSED.findall(whole)), default=0),
    }


def tap(path: Path) -> None:
    """Put the tap where answers go by and where requests are settled."""
    settle = Exchange.settle

    def settled(exchange: Exchange) -> None:
        if exchange._settled:
            return
        stream = None if exchange.delivery is None else exchange.delivery.stream
        settle(exchange)
        model_id = "" if exchange.model is None else exchange.model.model_id
        state, gate = closing.FINAL[exchange.outcome], exchange.grant.gate
        record = closing.record_of(exchange.caller, model_id, state, exchange.billed, gate)
        raw = bytes(getattr(stream, "raw", b""))
        line = {"record": msgspec.structs.asdict(record), "outcome": exchange.outcome}
        with path.open("ab") as file:
            file.write(json.dumps(line | {"engine": engines_words(raw)}).encode() + b"\n")

    vars(delivery)["AnswerStream"] = Tapped
    setattr(Exchange, "settle", settled)  # noqa: B010 - the one seam


if __name__ == "__main__":
    tap(Path(os.environ["HELEXA_TAP"]))
    sys.argv[1:1] = ["neuron"]
    main()
