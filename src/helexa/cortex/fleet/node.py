"""One node's task: listens to its events, polls it, and keeps its snapshot.

::

    poll ──ok──▶ heard ──(interval)──▶ poll            events ──snapshot──▶ apply ─┐
      └─failed─▶ missed ──(back-off)─▶ poll              ▲                         ▼
                                                         └──(back-off)── broke ─▶ poll now

A poll is the truth and an event is news: what an event says is replaced by the next poll, unless
the event came while the poll was under way. While
the event stream is up the node is polled seldom; when it breaks, at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from helexa.core.errors import HelexaError, UpstreamConnectionError
from helexa.core.fleet import Discovery, Health, ModelEntry, NodeVersion, RequestRecord
from helexa.core.outlook import Outlook
from helexa.cortex.fleet import state
from helexa.cortex.fleet.backoff import Backoff
from helexa.cortex.fleet.client import Answer, NodeApi
from helexa.cortex.fleet.events import (
    AdmissionEvent,
    DeviceEvent,
    DrainEvent,
    EventHead,
    GrantLow,
    LoadProgressEvent,
    SnapshotEvent,
    read_model,
    read_record,
)
from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.fleet.sse import EventReader, ServerEvent
from helexa.wire.bodies import UNREADABLE

T = TypeVar("T")


class Pace(msgspec.Struct, frozen=True):
    """How often a node is asked (seconds).

    Args:
        poll: Between polls of a node without an event stream.
        poll_with_events: Between polls while its events arrive.
        timeout: For one management answer.
        retry, retry_longest: Back-off after a failure.
        no_events: Before an event stream that answered 404 is asked for again.
        silence: An event stream without a byte for so long is broken.
    """

    poll: float = 2.0
    poll_with_events: float = 10.0
    timeout: float = 3.0
    retry: float = 0.25
    retry_longest: float = 5.0
    no_events: float = 60.0
    silence: float = 30.0


class NodeHooks(msgspec.Struct, frozen=True):
    """Whom a node's task tells what: all are called on the loop and must not wait."""

    changed: Callable[[NodeSnapshot], object]
    grant_low: Callable[[str, GrantLow], object]
    request_end: Callable[[str, RequestRecord], object]


class NodeTask:
    """Keeps one node's snapshot; ``run`` until cancelled.

    Args:
        name, endpoint: From the configuration.
        api: Its management routes.
        hooks: Whom to tell.
        now: Epoch seconds.
        rng: For jitter.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        *,
        api: NodeApi,
        hooks: NodeHooks,
        now: Callable[[], float],
        rng: random.Random,
        pace: Pace,
    ) -> None:
        self.api = api
        self.snapshot = NodeSnapshot(name, endpoint)
        self._hooks = hooks
        self._now = now
        self._pace = pace
        self._poll_backoff = Backoff(pace.retry, pace.retry_longest, rng)
        self._events_backoff = Backoff(pace.retry, pace.retry_longest, rng)
        self._poke = asyncio.Event()
        self._last_event_id: str | None = None
        self._news = 0
        self._new_life = False
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Listen and poll until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_polling())
                group.create_task(self._keep_listening())
        finally:
            with suppress(HelexaError, OSError):
                await self.api.aclose()

    def poll_now(self) -> None:
        """Do not wait for the next poll."""
        self._poke.set()

    def mark_draining(self, draining: bool) -> None:
        """We have just told the node, and need not wait to hear it back."""
        self._news += 1  # a poll that is under way may be older
        self._publish(replace(self.snapshot, draining=draining))

    def foretold(self, outlooks: Mapping[str, Outlook]) -> None:
        """What would become of models here, as the node has said."""
        self._publish(replace(self.snapshot, outlooks=dict(outlooks)))

    # Polling.

    async def _keep_polling(self) -> None:
        while True:
            self._poke.clear()
            wait = await self._poll()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._poke.wait()

    async def _poll(self) -> float:
        """Ask once; the seconds until the next time."""
        news = self._news
        try:
            health, models = await asyncio.gather(self._health(), self._get("/models"))
            entries = _decode(models, list[ModelEntry])
        except HelexaError as error:
            self._publish(state.missed(self.snapshot, error.message))
            return self._poll_backoff.failed()
        self._poll_backoff.succeeded()
        restarted = health is not None and health.uptime_secs < self.snapshot.uptime_secs
        asks = restarted or self._new_life or self.snapshot.discovery is None
        if asks:
            await self._discover()  # first: what could be loaded there is read beside its models
        if news == self._news:
            self._publish(state.heard(self.snapshot, self._now(), entries, health))
        else:
            # An event overtook the answer, which may be older than what we know by now.
            self._publish(state.alive(self.snapshot, self._now()))
        self._answered.set()
        if asks:
            await self._learn_more()
        seldom = self.snapshot.events and news == self._news
        pace = self._pace.poll_with_events if seldom else self._pace.poll
        return self._poll_backoff.spread(pace)

    async def _health(self) -> Health | None:
        """The node's figures; None when only they could not be had."""
        try:
            return _decode(await self._get("/health"), Health)
        except HelexaError:
            return None

    async def _discover(self) -> None:
        """What the host is; changes with the node's process only. Until it has been told anew,
        what was known of an earlier life stands: without it nothing could be loaded there."""
        with suppress(HelexaError):
            discovery = _decode(await self._get("/discovery"), Discovery)
            self._new_life = False
            self._publish(replace(self.snapshot, discovery=discovery))

    async def _learn_more(self) -> None:
        """Try the ways that it offers, and ask for its version."""
        with suppress(HelexaError):
            if self.snapshot.discovery is not None:
                await self.api.offered(self.snapshot.discovery)
        with suppress(HelexaError):
            version = _decode(await self._get("/version"), NodeVersion)
            self._publish(replace(self.snapshot, version=version))

    async def _get(self, path: str) -> Answer:
        return await self.api.get(path, self._pace.timeout)

    # Listening.

    async def _keep_listening(self) -> None:
        await self._answered.wait()
        while True:
            wait = await self._listen()
            if self.snapshot.events:
                self._publish(replace(self.snapshot, events=False))
                self.poll_now()
            await asyncio.sleep(wait)

    async def _listen(self) -> float:
        """Follow one event stream to its end; the seconds until the next try."""
        reader = EventReader()
        try:
            async with self.api.events(self._last_event_id, self._pace.silence) as stream:
                if stream.status != 200:
                    return self._events_backoff.spread(self._pace.no_events)
                self._events_backoff.succeeded()
                if self._last_event_id is not None and not self.snapshot.events:
                    # Resumed: if nothing has happened meanwhile, nothing will be sent either.
                    self._publish(replace(self.snapshot, events=True))
                async for chunk in stream.chunks:
                    for event in reader.feed(chunk):
                        self._apply(event)
        except (HelexaError, ValueError):
            pass  # the poll says what is wrong with the node; this is only its news
        return self._events_backoff.failed()

    def _apply(self, event: ServerEvent) -> None:
        """Take over one event; one that cannot be read asks for a poll instead."""
        if event.id is not None:
            self._last_event_id = event.id
        try:
            head = msgspec.json.decode(event.data, type=EventHead)
            changed = self._changed(head, event.data)
        except UNREADABLE:
            self.poll_now()
            return
        if changed is not self.snapshot or not changed.events:
            self._news += 1
            self._publish(replace(changed, events=True, epoch=head.epoch))

    def _changed(self, head: EventHead, data: bytes) -> NodeSnapshot:
        node, decode = self.snapshot, msgspec.json.decode
        match head.type:
            case "snapshot":
                if node.epoch not in (None, head.epoch):
                    self._new_life = True
                    self.poll_now()
                return state.snapshot_event(node, self._now(), decode(data, type=SnapshotEvent))
            case "model":
                entry = read_model(data)
                if entry.status not in ("loading", "loaded", "unloaded"):
                    self.poll_now()  # it may be about to leave the list
                return state.model_changed(node, entry)
            case "load_progress":
                return state.load_progressed(node, decode(data, type=LoadProgressEvent))
            case "device":
                device = decode(data, type=DeviceEvent)
                more = [] if device.device is None else [device.device]
                return state.devices_changed(node, [*device.devices, *more])
            case "admission":
                admission = decode(data, type=AdmissionEvent)
                loads = [] if admission.model is None else [admission.model]
                return state.loads_changed(node, [*admission.models, *loads])
            case "drain":
                return replace(node, draining=decode(data, type=DrainEvent).draining)
            case "grant_low":
                self._hooks.grant_low(node.name, decode(data, type=GrantLow))
            case "request_end":
                self._hooks.request_end(node.name, read_record(data))
        return node

    def _publish(self, snapshot: NodeSnapshot) -> None:
        self.snapshot = snapshot
        self._hooks.changed(snapshot)


def _decode(answer: Answer, kind: type[T]) -> T:
    if answer.status != 200:
        hint = " The fleet secret differs." if answer.status in (401, 403) else ""
        raise UpstreamConnectionError(f"The node answered with status {answer.status}.{hint}")
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except UNREADABLE as error:
        raise UpstreamConnectionError(f"The node's answer cannot be read: {error}.") from error
