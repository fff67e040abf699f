"""The engine protocol: everything a node may ask of an engine.

::

    can_run ─▶ plan ─▶ launch ─▶ ready ─▶ clean / count / load ─▶ stop
    (facts)   (memory)  (argv)    (probe)   (per request)           (supervisor kills)

An ``Engine`` is stateless knowledge about one kind of engine. What runs is an
``EngineProcess``, owned by the supervisor. A request is cleaned on the way in and its stream on
the way out; the ``Cleaner`` is also the meter. Clean chat, the only thing nodes speak:

* every event is ``data: {json}\\n\\n`` with a schema-valid ``chat.completion.chunk`` under the
  served model id; no empty content deltas, no nulls the schema forbids; reasoning in
  ``delta.reasoning_content``; one tool-call shape; the first chunk may carry ``timings`` with
  what is known of the prompt, a finish chunk ``stop_reason`` with the stop text that ended it;
* then one usage chunk (``choices: []``, ``usage`` with sub-counts, ``timings``), then
  ``data: [DONE]\\n\\n``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import Device, DeviceReading
from helexa.core.usage import Timings, Usage
from helexa.neuron.models.facts import ModelFacts

UNCOUNTED = 1 << 62
"""More tokens than any limit or grant: such a prompt is always counted before it is admitted."""


class Verdict(msgspec.Struct, frozen=True):
    """Can this engine run this model on this host? ``reason`` is a code, ``detail`` words."""

    ok: bool
    reason: str | None = None
    detail: str | None = None


class Host(msgspec.Struct, frozen=True):
    """What plans are made against: devices, their latest readings, and the CPU side.

    ``memory_total_mb`` and ``memory_free_mb`` respect cgroup limits; ``cores`` is what this
    process may use. ``fault`` says why the GPUs this host was set up with cannot be used: an
    engine then runs nothing unless the CPU was asked for.
    """

    devices: tuple[Device, ...]
    readings: tuple[DeviceReading, ...]
    memory_total_mb: int
    memory_free_mb: int
    cores: int
    fault: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """How a model will be run, decided before anything is started.

    Args:
        context: Tokens one slot really has.
        slots: Requests that run at once.
        kv_cells: Tokens of KV memory in all; ``context × slots`` unless unified.
        unified: One pool of cells shared by the slots.
        ahead_cells: Cells per slot that the engine has beyond ``kv_cells``, never granted: it
            computes on while its last token travels to the node and is counted there.
        kv_type: ``f16``, ``q8_0`` or ``q4_0``.
        devices: Indices used; empty means the CPU.
        tensor_split: Share per device.
        gpu_layers: Layers on the devices.
        threads: CPU threads of the engine.
        batch: Logical batch; the prefill chunk, sized so that a cancel is seen in time.
        memory_mb: Predicted memory per device index (−1 is host memory), weights + KV + rest.
        cache_ram_mb: Host memory budgeted for the prompt cache.
        extra: Engine-specific settings from the operator.
    """

    context: int
    slots: int
    kv_cells: int
    unified: bool = True
    kv_type: str = "f16"
    ahead_cells: int = 0
    devices: tuple[int, ...] = ()
    tensor_split: tuple[float, ...] = ()
    gpu_layers: int = 0
    threads: int = 1
    batch: int = 512
    memory_mb: dict[int, int] = {}
    cache_ram_mb: int = 0
    embeddings: bool = False
    rerank: bool = False
    extra: dict[str, object] = {}


class Launch(msgspec.Struct, frozen=True):
    """A process to start.

    Args:
        argv: Shows ``--engine`` and ``--model``, never a secret.
        env: The whole environment of the process.
        secret: One line of JSON written to the process's stdin, which then stays open: its end
            of file tells the process that its neuron is gone.
        api_key: The key the engine will demand, also inside ``secret``.
        memory_limit_mb: Address space limit, for tests of running out of memory.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    secret: bytes
    cwd: Path | None = None
    api_key: str = ""
    memory_limit_mb: int | None = None

    def __repr__(self) -> str:
        return f"Launch(argv={self.argv!r}, secret=***)"


class Address(msgspec.Struct, frozen=True):
    """Where a ready engine answers: loopback ``host:port`` or a Unix socket, and its key."""

    host: str = "127.0.0.1"
    port: int = 0
    uds: str | None = None
    api_key: str = ""

    def __repr__(self) -> str:
        return f"Address(host={self.host!r}, port={self.port}, uds={self.uds!r}, api_key=***)"


@dataclass(slots=True)
class Meter:
    """Counts of one request as its stream goes by; only the cleaner writes it.

    ``output`` counts every token taken from the engine (reasoning included, all choices).
    ``prompt_known`` turns true with the engine's first progress event or usage. ``estimated``
    marks counts that the engine never gave: a token for every delta, the prompt by its bytes.
    """

    prompt: int = 0
    prompt_processed: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    prompt_known: bool = False
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0
    estimated: bool = False

    def usage(self) -> Usage:
        """The counts as they stand."""
        return Usage(self.prompt, self.output, self.cached, self.reasoning)

    def timings(self) -> Timings:
        """The ``timings`` member of the usage chunk."""
        return Timings(
            self.prompt - self.cached, self.cached, self.prompt_ms, self.output, self.predicted_ms
        )


class Served(msgspec.Struct, frozen=True):
    """The model as a request meets it."""

    model_id: str
    facts: ModelFacts
    plan: Plan
    max_output: int


class Cleaner(Protocol):
    """One request's way through an engine: stream in, clean chat out, counted.

    ``feed`` takes whole events (bytes up to and including a blank line) and returns clean events,
    possibly none, possibly several in one bytes object. It never raises on engine garbage: what
    cannot be understood sets ``failed``.
    """

    meter: Meter
    finish_reason: str | None
    failed: HelexaError | None
    done: bool

    def feed(self, events: bytes) -> bytes:
        """Clean events for the whole engine events ``events``."""

    def close(self, finish: str, why: str | None) -> bytes:
        """End the answer ourselves: finish chunk (``finish_reason``, ``helexa.finish``), usage
        chunk and terminator, with the counts as they stand."""

    def whole(self) -> bytes:
        """The plain ``chat.completion`` body for everything fed so far (answers not streamed)."""


Splice = Callable[[bytes, int], bytes]
"""A cleaner's short way for the usual case: takes bytes that begin an HTTP chunk, as they came, and
the most tokens they may cost. Returns the clean events, counted by the same meter, or nothing: then
nothing has been counted, and they go to ``Cleaner.feed``."""


class Frame(Protocol):
    """What a stream of answers to several prompts is put together in."""

    def chunk(self, members: dict[str, Any]) -> bytes:
        """One event with further members."""

    def usage(self, meter: Meter) -> bytes:
        """The usage chunk."""


Whole = Callable[[Sequence[Any], Meter, str | None], bytes]
"""Makes a plain answer of its items; the last argument says why it was cut."""


class Several(msgspec.Struct, frozen=True, eq=False):
    """The prompts of one text completion; or the inputs of one embeddings or rerank request, a few
    at a time, so that not many are computed for somebody who has left.

    Args:
        requests: Their items are numbered on from one to the next.
        items: The member of a plain answer that holds them.
        frame: Of what is streamed.
        sizes: Tokens of each prompt; known before the first is admitted.
    """

    requests: tuple[EngineRequest, ...]
    items: str
    whole: Whole
    frame: Frame | None = None
    sizes: tuple[int, ...] = ()

    def size(self, index: int) -> int:
        """Tokens of one of the requests, or more than that."""
        return self.sizes[index] if self.sizes else self.requests[index].most or 0


class EngineRequest(msgspec.Struct, frozen=True, eq=False):
    """A cleaned request, ready for the engine's HTTP server; always a stream for chat.

    Args:
        cleaner: Feed it whole events, or, where ``events`` is false (embeddings, rerank), the
            engine's plain body in any pieces; ``whole()`` is then the answer.
        stream: The client asked for a stream; otherwise it gets ``cleaner.whole()``.
        choices: Answers asked for at once (``n``); each takes a slot of the engine.
        most: Tokens that the prompt cannot exceed, all inputs together; None is one a byte of
            the body. ``UNCOUNTED`` where bytes say nothing (images).
        longest: The same of the longest single input, where there are several.
        splice: The cleaner's short way, if it has one for this request.
        several: What is asked instead, one after the other. Of prompts this is the first, of
            other inputs all at once, for whoever counts them.
    """

    method: str
    path: str
    body: bytes
    cleaner: Cleaner
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: bool = True
    events: bool = True
    choices: int = 1
    most: int | None = None
    longest: int | None = None
    splice: Splice | None = None
    several: Several | None = None

    @property
    def prompts(self) -> int:
        """Tokens of several prompts together."""
        return 0 if self.several is None else sum(self.several.sizes)


@dataclass(slots=True)
class LoadFigures:
    """What an engine says about itself now; tokens and tokens per second."""

    kv_used: int = 0
    running: int = 0
    waiting: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """Knowledge about one kind of engine. Pure except ``ready``, ``count`` and ``load``."""

    name: str

    def version(self) -> str | None:
        """Installed version, or None when the engine is not installed."""

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        """Whether the engine and this host suit the model; memory is ``plan``'s business."""

    def plan(self, facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
        """Memory, slots and devices.

        Args:
            wanted: The operator's settings for this engine and model.

        Raises:
            InsufficientVram: With the figures and the nearest thing that would fit.
        """

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """The command line and environment of the engine process."""

    async def ready(self, address: Address, model_id: str) -> None:
        """Return when the engine answers and one sanity token was sane.

        Raises:
            HelexaError: The model loads but does not work (NaN logits, garbage).
        """

    def clean(
        self,
        route: str,
        body: bytes,
        served: Served,
        request_id: str,
        *,
        thinking: bool = False,
        plain: bool = False,
    ) -> EngineRequest:
        """Decode the client's request once, repair it, and pair it with its cleaner.

        Args:
            route: ``chat``, ``completions``, ``embeddings`` or ``rerank``.
            body: The client's JSON bytes.
            thinking: A header or the catalogue asks for thinking; the body may ask itself.
            plain: ``plain.plain_chat`` has found nothing in the body that is to be checked.

        Raises:
            RequestRefused: Wrong types (with path), images a text model cannot see, ...
        """

    async def count(
        self, address: Address, body: bytes, served: Served, *, thinking: bool = False
    ) -> int:
        """Exact prompt tokens of a chat request, through the engine's template and tokenizer.

        Args:
            thinking: As for ``clean``; the template's switch changes the prompt.
        """

    async def count_cleaned(self, address: Address, asked: EngineRequest, served: Served) -> int:
        """Exact prompt tokens of a request that was cleaned already, all its inputs together.

        Raises:
            ContextLengthExceeded: One of several inputs is too long by itself; ``param`` says
                which.
        """

    async def render(self, address: Address, body: bytes, served: Served) -> str:
        """The prompt that the model's template makes of a chat request, for whoever debugs it.

        Raises:
            UnsupportedOperation: The engine does not show it.
            TemplateRenderFailed: The template refuses the request.
        """

    async def load(self, address: Address) -> LoadFigures:
        """Current load figures."""

    def error(self, status: int, body: bytes, served: Served) -> HelexaError:
        """Map the engine's own refusal to our tree."""
