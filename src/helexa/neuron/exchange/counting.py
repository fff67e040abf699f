"""Counting the prompt of a request, in any dialect, exactly and free of charge.

The engine's own template and tokenizer count what they would be given: tools, images and the
thinking switch included. Nothing is admitted and no record is kept, since nothing is computed.
"""

from __future__ import annotations

import asyncio

from helexa.core.errors import HelexaError
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.desk import THREAD_BYTES, Desk
from helexa.neuron.exchange.lines import JSON, id_lines
from helexa.neuron.exchange.way import Way
from helexa.neuron.registry.served import ServedModel
from helexa.relay.reply import Reply
from helexa.wire import errors as wire
from helexa.wire.messages import dialect as messages
from helexa.wire.peek import peek
from helexa.wire.responses import dialect as responses
from helexa.wire.translation import Translation


class Counting:
    """Answers one request to count; ``start`` it, and it sees to its own end."""

    def __init__(self, desk: Desk, way: Way, body: bytes, reply: Reply, caller: Caller) -> None:
        self._desk = desk
        self._way = way
        self._body = body
        self._reply = reply
        self._caller = caller
        self._translation: Translation | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin; given up when the caller leaves."""
        task = self._desk.loop.create_task(self._run())
        self._reply.on_gone = task.cancel
        return task

    async def _run(self) -> None:
        try:
            tokens = await self._count()
        except HelexaError as error:
            self._refuse(error)
        except asyncio.CancelledError:
            if not self._reply.gone:
                raise
        except Exception:  # the edge of a request: a bug of ours must not leave it hanging
            self._desk.log.exception("bug", request_id=self._caller.request_id)
            self._refuse(wire.internal_error(self._caller.request_id))
        else:
            told = messages if self._way.dialect == "anthropic" else responses
            self._reply.send(
                200, JSON + id_lines(self._caller.request_id), told.token_count(tokens)
            )

    async def _count(self) -> int:
        seen = peek(self._body)
        model = self._desk.node.registry.serving(seen.model)
        if len(self._body) < THREAD_BYTES:
            asked = self._asked(model)
        else:
            asked = await asyncio.to_thread(self._asked, model)
        return await model.count(asked, self._caller.key_id)

    def _asked(self, model: ServedModel) -> EngineRequest:
        caller, way, body = self._caller, self._way, self._body
        if way.translate is not None:
            self._translation = way.translate(body, caller.request_id)
            body = self._translation.body
        return model.engine.clean(
            way.route, body, model.served, caller.request_id, thinking=caller.thinking
        )

    def _refuse(self, error: HelexaError) -> None:
        if self._translation is not None:
            error = self._translation.restated(error)
        rendered = wire.render(error, self._way.dialect, self._caller.request_id)
        self._reply.send(
            rendered.status, rendered.lines + id_lines(self._caller.request_id), rendered.body
        )
