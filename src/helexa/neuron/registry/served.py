"""One loaded model and everything a request needs of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from helexa.core.errors import HelexaError, ModelRecovering
from helexa.core.families import RequestMetrics
from helexa.core.fleet import Limit, LoadRequest, ModelEntry, ModelLoad, ModelStatus, Servable
from helexa.neuron.admission import Admission
from helexa.neuron.admission.owner import going_away
from helexa.neuron.engines.base import Address, Engine, EngineRequest, Plan, Served
from helexa.neuron.engines.supervisor import EngineProcess
from helexa.neuron.limits import FreeMemory, PrefillRate, check_memory, servable, steady
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan import tokens_in
from helexa.neuron.slots import Slots
from helexa.neuron.turns import Turns
from helexa.neuron.watchdog import Watchdog
from helexa.relay.pool import UpstreamPool

SMOOTHING = 0.3
LEAST_DECODED = 8
SAME_RATE = 0.01
"""A prefill rate that has changed by less is not worth deriving a limit from."""

COUNTS_AT_ONCE = 4
LONG_BYTES = 16 * 1024
"""Counting a longer prompt takes the engine's host a while."""

CUT_SECS = 2.0
"""How long answers that were cut may take to leave."""


class Cuttable(Protocol):
    """A request that runs on the model."""

    def cut(self, why: str) -> None:
        """End the answer early and cleanly."""

    def read_on(self) -> None:
        """Its engine is gone: whatever its reader does, see what is left of the answer."""


@dataclass(slots=True, eq=False)
class ServedModel:
    """A loaded model. Its engine may die and come back under another address meanwhile.

    Args:
        pool: Connections to the engine's present life.
        running: Requests from before admission to their last byte.
        free_memory: The latest readings of the places it uses.
        derive: The limit at a prefill rate (tokens per second).
        devices: Indices it is listed with; the host itself is one on a host without GPUs.
        relisted: Called when what ``/models`` says has changed.
        learned: Called with the measured prefill rate when the model ends.
        freed: Called when its memory is free again.
        memory_mb: Measured after loading, of the engine on all devices.
        decode_rate: Tokens per second of one answer, smoothed.
    """

    spec: LoadRequest
    engine: Engine
    process: EngineProcess
    facts: ModelFacts
    plan: Plan
    served: Served
    limit: Limit
    admission: Admission
    prefill: PrefillRate
    watchdog: Watchdog
    pool: UpstreamPool
    metrics: RequestMetrics
    make_pool: Callable[[Address], UpstreamPool]
    free_memory: Callable[[], FreeMemory]
    derive: Callable[[float], Limit]
    devices: list[int]
    relisted: Callable[[], object]
    learned: Callable[[float], object]
    freed: Callable[[], object]
    memory_mb: int = 0
    decode_rate: float = 0.0
    rejected_too_long: int = 0
    last_used: float = 0.0
    _enough: FreeMemory | None = None  # readings that were above every floor
    _judged_at: float = 0.0  # the prefill rate that the limit was last derived from
    running: set[Cuttable] = field(default_factory=set)
    slots: Slots = field(init=False)
    prompt_cache_tokens: int = field(init=False)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _counting: Turns = field(default_factory=lambda: Turns(COUNTS_AT_ONCE))

    def __post_init__(self) -> None:
        self.slots = Slots(self._busy_slots, asyncio.get_running_loop().time)
        plan = self.plan
        self.prompt_cache_tokens = tokens_in(self.facts, plan.cache_ram_mb, plan.kv_type)

    async def _busy_slots(self) -> int:
        """Asked of the engine; one that has died runs nothing."""
        address = self.process.address
        return 0 if address is None else (await self.engine.load(address)).running

    @property
    def model_id(self) -> str:
        """The id it is served under."""
        return self.spec.model_id

    def enter(self, request: Cuttable) -> None:
        """A request begins; before its first await."""
        if not self.running:
            self.quiet.clear()
        self.running.add(request)

    def leave(self, request: Cuttable, now: float) -> None:
        """A request has ended; idempotent."""
        self.running.discard(request)
        self.last_used = now
        if not self.running:
            self.quiet.set()

    @property
    def address(self) -> Address:
        """Where the engine answers.

        Raises:
            ModelRecovering: It has just died.
        """
        address = self.process.address
        if address is None:
            raise ModelRecovering(f"The model '{self.model_id}' is restarting.", retry_after_s=2)
        return address

    def head(self, asked: EngineRequest) -> bytes:
        """Request line and headers of a request to the engine."""
        more = b""
        if asked.headers:
            more = b"".join(b"%b: %b\r\n" % header for header in asked.headers)
        return (
            b"%b %b HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        ) % (
            asked.method.encode(),
            asked.path.encode(),
            self.address.api_key.encode(),
            more,
            len(asked.body),
        )

    async def count(self, asked: EngineRequest, key_id: str) -> int:
        """Exact prompt tokens of what will be sent. Of long ones only a few are counted at once,
        in turns of those who ask: it is done on the cores that the model runs on, before a seat
        and a budget, and its time is bounded.

        Raises:
            HelexaError: The engine refuses the request.
        """
        if len(asked.body) < LONG_BYTES:
            return await self.engine.count_cleaned(self.address, asked, self.served)
        async with self._counting.of(key_id):
            return await self.engine.count_cleaned(self.address, asked, self.served)

    async def render(self, body: bytes) -> str:
        """The prompt that the template makes of a chat request."""
        return await self.engine.render(self.address, body, self.served)

    def reconnect(self, address: Address) -> None:
        """The engine lives again, somewhere else."""
        self.pool.close()
        self.pool = self.make_pool(address)
        self.watchdog.restarted()
        self.slots.forget()
        for request in list(self.running):
            request.read_on()

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """The engine read ``tokens`` uncached tokens; the limit follows its speed."""
        rate = self.prefill.observe(tokens, seconds)
        if rate is None or abs(rate - self._judged_at) <= SAME_RATE * rate:
            return
        self._judged_at = rate
        limit = steady(self.limit, self.derive(rate))
        if limit != self.limit:
            self.limit = limit
            self.served = msgspec.structs.replace(self.served, max_output=limit.output)
            self.relisted()

    def note_decode(self, tokens: int, seconds: float) -> None:
        """One answer of ``tokens`` took the engine ``seconds``."""
        if tokens >= LEAST_DECODED and seconds > 0:
            before = self.decode_rate or tokens / seconds
            self.decode_rate = before + SMOOTHING * (tokens / seconds - before)

    def short_of_memory(self) -> HelexaError | None:
        """The refusal while a place it uses is below its floor."""
        memory = self.free_memory()
        if memory is self._enough:
            return None
        refusal = check_memory(memory)
        if refusal is None:
            self._enough = memory
        return refusal

    def servable(self) -> Servable:
        """Whether a minimal request would be accepted now, by the check requests meet."""
        return servable(self.limit, self.free_memory())

    def capabilities(self) -> list[str]:
        """What the file can do, as it was loaded."""
        found = list(self.facts.capabilities)
        for name, planned in (("embeddings", self.plan.embeddings), ("rerank", self.plan.rerank)):
            if planned and name not in found:
                found.append(name)
        return found

    def listing(self, status: ModelStatus) -> ModelEntry:
        """Its entry of ``/models``."""
        capabilities = self.capabilities()
        return ModelEntry(
            id=self.model_id,
            status=status,
            harness=self.engine.name,
            devices=self.devices,
            vram_used_mb=self.memory_mb,
            capabilities=capabilities,
            limit=self.limit,
            tool_call="tools" in capabilities,
            reasoning="reasoning" in capabilities,
            servable=self.servable(),
        )

    def figures(self) -> ModelLoad:
        """Its entry of ``/health``."""
        figures = self.admission.figures(self.model_id)
        return msgspec.structs.replace(
            figures,
            rejected_too_long=figures.rejected_too_long + self.rejected_too_long,
            tok_s_prefill=round(self.prefill.tok_s, 1),
            tok_s_decode=round(self.decode_rate, 1),
            prompt_cache_tokens=self.prompt_cache_tokens,
        )

    def idle_secs(self, now: float) -> float:
        """Seconds since the last request ended; 0 while one runs or waits."""
        return 0.0 if self.running else now - self.last_used

    async def finish(self, within_s: float) -> None:
        """Let what runs end within ``within_s``, then cut it cleanly; nothing waits any more."""
        self.admission.close(going_away(self.model_id))
        if await self._quiet_within(within_s):
            return
        for request in list(self.running):
            request.cut("drain")
        await self._quiet_within(CUT_SECS)

    async def _quiet_within(self, seconds: float) -> bool:
        if not self.running:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self.quiet.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the engine; bounded by its supervisor's grace."""
        if self.prefill.measured:
            self.learned(self.prefill.tok_s)
        self.pool.close()
        await self.process.stop()
        self.slots.forget()
        self.freed()
