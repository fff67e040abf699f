"""``helexa neuron`` with an engine whose price does not count: for measuring both hops.

The node is the real one, engine process and all; only the program behind the engine protocol
speaks from a can, on the load generator's core. Started as ``--engine`` it is that program: the
stub node's protocol with llama.cpp's events, ``TOKENS`` of them, ``GAP_S`` apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import uvloop
from kit.process import LOAD_CORE, pinned
from kit.seam import be_neuron_with
from stub_node import Node, Play, Stage, answer, framed

from helexa.neuron.engines import lifeline
from helexa.neuron.engines.base import Launch, Plan
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.models.facts import ModelFacts

TOKENS, GAP_S, PROMPT = 64, 0.01, 70


class Costless(FakeEngine):
    """The canned engine in llama.cpp's place."""

    name = "llamacpp"

    def __init__(self, environ: Mapping[str, str], *_: object, **__: object) -> None:
        super().__init__(environ)

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """This file, on the load generator's core."""
        launch = super().launch(facts, plan, model_id)
        command = [sys.executable, __file__, *launch.argv[3:]]
        return msgspec.structs.replace(launch, argv=tuple(pinned(LOAD_CORE, command)))


def event(**members: Any) -> bytes:
    """One event as llama.cpp frames it."""
    common = {"created": 1700000000, "id": "chatcmpl-1", "model": "spark.gguf"}
    common |= {"system_fingerprint": "b1", "object": "chat.completion.chunk"}
    return framed(json.dumps(members | common, separators=(",", ":")))


def choice(delta: object, finish: str | None, said: int) -> bytes:
    """One event of a choice, with the count that ``timings_per_token`` adds."""
    timings = {"cache_n": 0, "prompt_n": PROMPT, "prompt_ms": 1.0}
    timings |= {"predicted_n": said, "predicted_ms": 1.0}
    choices = [{"finish_reason": finish, "index": 0, "delta": delta}]
    return event(choices=choices, timings=timings)


def script() -> Play:
    """Progress, tokens, reason, usage."""
    play = Play(tokens=TOKENS + 1, gap_s=GAP_S)
    role = {"role": "assistant", "content": None}
    progress = {"total": PROMPT, "cache": 0, "processed": PROMPT, "time_ms": 1}
    first = event(choices=[{"finish_reason": None, "index": 0, "delta": role}])
    begun = event(
        choices=[{"finish_reason": None, "index": 0, "delta": role}], prompt_progress=progress
    )
    said = [choice({"content": f" tok{n}"}, None, n + 1) for n in range(TOKENS)]
    total = TOKENS + 1  # the token that ends an answer is counted too
    usage = {"completion_tokens": total, "prompt_tokens": PROMPT, "total_tokens": total + PROMPT}
    timings = {"cache_n": 0, "prompt_n": PROMPT, "prompt_ms": 1.0}
    timings |= {"predicted_n": total, "predicted_ms": 1.0}
    last = choice({}, "stop", total) + event(choices=[], usage=usage, timings=timings)
    tail = last + framed("[DONE]") + b"0\r\n\r\n"
    canned = {"events": (begun + first, *said), "tail": tail, "tail_with_usage": tail}
    for name, value in canned.items():
        object.__setattr__(play, name, value)
    return play


class Engine(Node):
    """Streams whatever is asked for; the node asks engines for streams only."""

    def _chat(self, body: bytes) -> None:  # noqa: ARG002
        self._play = self._stage.play
        self._tail = self._play.tail
        self._begin()


async def serve(report: lifeline.Report) -> None:
    """Answer until the node is gone."""
    stage = Stage(script(), multiplex=False)
    probe = {"content": "x", "completion_probabilities": [{"logprob": -0.5}]}
    stage.routes |= {
        "/props": answer({"total_slots": 128}),
        "/slots": answer([]),
        "/completion": answer(probe),
        "/v1/chat/completions/input_tokens": answer({"input_tokens": PROMPT}),
    }
    loop = asyncio.get_running_loop()
    uds = f"\0helexa-costless-{os.getpid()}.sock"
    await loop.create_unix_server(lambda: Engine(stage, 0), uds, backlog=4096)
    report.send({"uds": uds})
    await asyncio.Event().wait()


def engine() -> None:
    """Be the engine."""
    report = lifeline.Report()
    lifeline.receive()
    lifeline.watch()
    uvloop.run(serve(report))


if __name__ == "__main__":
    engine() if "--engine" in sys.argv else be_neuron_with(Costless)
