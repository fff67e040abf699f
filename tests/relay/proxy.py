"""A relay without a gateway around it: what the exchanges of streams are tested with."""

from __future__ import annotations

import asyncio

from tests.relay.rig import HEAD, TEXT

from helexa.relay.answer import Answer, StreamForm
from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.http1 import BadRequest
from helexa.relay.pool import UpstreamPool
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.wheel import Wheel

SSE = b"content-type: text/event-stream\r\n"


KEEP_ALIVE = b": keep-alive\n\n"


ERROR = b"event: error\ndata: {}\n\n"


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def form(**changes: float) -> StreamForm:
    return StreamForm(SSE, lambda: KEEP_ALIVE, **changes)


class Proxy:
    """What an application does with the relay's parts, without anything of its own.

    ``/plain`` collects the answer, everything else streams it.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        deadlines: Deadlines | None = None,
        form: StreamForm | None = None,
    ) -> None:
        self.pool = pool
        self.wheel = Wheel(asyncio.get_running_loop(), 0.01)
        self.form = form or StreamForm(SSE, lambda: KEEP_ALIVE)
        self.deadlines = deadlines or Deadlines()
        self.tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.flows: list[bool] = []

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        return b"", error.message.encode()

    def handle(self, request: Request, reply: Reply) -> None:
        task = asyncio.get_running_loop().create_task(self._run(request, reply))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        reply.on_gone = task.cancel

    async def _run(self, request: Request, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        answer = Answer(reply, self.form, self.wheel, loop)
        streams = request.path != b"/plain"
        write = answer.write if streams else None
        attempt = Attempt(self.pool, self.wheel, loop, self.deadlines, write)

        def flow(slow: bool) -> None:
            self.flows.append(slow)
            attempt.pause(slow)

        reply.on_flow = flow
        if streams:
            answer.accept(request.received)
        self.in_flight += 1
        try:
            await attempt.run(HEAD % len(request.body), request.body)
        finally:
            self.in_flight -= 1
            reply.on_flow = None
        if attempt.failure is None and attempt.status == 200 and streams:
            answer.end()
        elif answer.committed:
            answer.end(ERROR)
        elif attempt.failure is not None:
            reply.send(504 if attempt.failure.timed_out else 502, TEXT, b"")
        else:
            reply.send(attempt.status, TEXT, attempt.body)
