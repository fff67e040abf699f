from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.bench.made import DONE, OK, Write, chunk, json_answer, serving, usage

from helexa.bench.probe.stream import Prober
from helexa.bench.row import DeviceState, Result
from helexa.bench.scenarios.build import by_name, scenarios
from helexa.bench.settings import BenchSettings, ScenarioSettings, SweepSettings, TargetSettings
from helexa.bench.store.store import Store
from helexa.bench.sweep.due import Due
from helexa.bench.sweep.runner import Outcome, Sweep
from helexa.bench.targets.base import Survey, TargetDown
from helexa.bench.targets.neuron import NeuronTarget
from helexa.bench.targets.openai import OpenaiTarget

SETTINGS = BenchSettings(
    bench=SweepSettings(samples_per_version=2, iteration_pause_secs=0, quiet_wait_secs=0),
    scenarios=ScenarioSettings(prompt_sizes=(8,), max_tokens=4),
)


@dataclass
class Notes:
    """A progress that remembers."""

    due: int = 0
    notes: list[str] = field(default_factory=list)
    results: list[Result | None] = field(default_factory=list)

    def begin(self, runs: int) -> None:
        self.due = runs

    def note(self, text: str) -> None:
        self.notes.append(text)

    def done(self, run: Due, result: Result | None) -> None:
        self.results.append(result)

    def end(self) -> None:
        pass


@dataclass
class Node:
    """A neuron's management side and its answers, as a script."""

    version: str = "1.0"
    in_flight: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    update_after: int | None = None
    say: bytes = chunk({"content": "a"}) + chunk({}, finish_reason="length") + usage(8, 4) + DONE

    async def __call__(self, body: dict[str, Any], write: Write) -> None:
        path = body.pop("_path")
        if path == "/v1/chat/completions":
            self.asked.append(body)
            if self.update_after is not None and len(self.asked) >= self.update_after:
                self.version = "2.0"
            await write(OK + self.say)
            return
        load = {"id": "m", "in_flight": self.in_flight}
        devices = [{"index": 0, "name": "RTX 5090"}, {"index": 1, "name": "RTX 5090"}]
        routes: dict[str, Any] = {
            "/version": {"package_version": self.version, "git_sha": "abc", "engines": {"x": "7"}},
            "/discovery": {"hostname": "secret-host", "devices": devices},
            "/models": [{"id": "m", "status": "loaded", "harness": "x", "tool_call": True}],
            "/health": {"models": [load], "devices": [{"index": 0, "vram_used_mb": 5}]},
        }
        await write(json_answer(routes.get(path, {}), 200 if path in routes else 404))


def target(url: str, name: str = "node", kind: str = "neuron") -> NeuronTarget | OpenaiTarget:
    if kind == "neuron":
        return NeuronTarget(TargetSettings(name, "neuron", url), None, 5, "bench 1")
    return OpenaiTarget(TargetSettings(name, "openai", url), None, 5, "bench 1")


async def sweep(
    path: Path, targets: Sequence[Any], settings: BenchSettings = SETTINGS
) -> tuple[Outcome, Notes]:
    store, notes = Store(path), Notes()
    try:
        wanted = scenarios(settings.scenarios)
        outcome = await Sweep(settings, targets, wanted, store, notes, lambda: 1.0).run()
    finally:
        store.close()
    return outcome, notes


@pytest.mark.anyio
async def test_a_cell_is_left_alone_once_it_has_its_samples(tmp_path: Path) -> None:
    node = Node()
    async with serving(node) as url:
        first, _ = await sweep(tmp_path / "db", [target(url)])
        second, notes = await sweep(tmp_path / "db", [target(url)])
    assert (first.stored, second.stored, notes.due) == (2, 0, 0)


@pytest.mark.anyio
async def test_a_new_build_is_measured_anew(tmp_path: Path) -> None:
    node = Node()
    async with serving(node) as url:
        await sweep(tmp_path / "db", [target(url)])
        node.version = "1.1"
        again, _ = await sweep(tmp_path / "db", [target(url)])
    assert again.stored == 2
    store = Store(tmp_path / "db")
    builds = {"1.0+abc", "1.1+abc"}
    assert {key.build for key in store.counts(builds)} == builds
    store.close()


@pytest.mark.anyio
async def test_the_warm_up_is_not_stored_and_every_run_asks_something_new(tmp_path: Path) -> None:
    node = Node()
    async with serving(node) as url:
        outcome, _ = await sweep(tmp_path / "db", [target(url)])
    prompts = [body["messages"][0]["content"] for body in node.asked]
    assert (outcome.stored, len(prompts), len(set(prompts))) == (2, 3, 3)
    assert all(body["max_tokens"] == 4 for body in node.asked[1:])


@pytest.mark.anyio
async def test_everyone_is_asked_the_same_but_for_the_letters_at_the_start(tmp_path: Path) -> None:
    one, two = Node(), Node()
    async with serving(one) as a, serving(two) as b:
        await sweep(tmp_path / "db", [target(a, "one"), target(b, "two")])
    told = [
        [body["messages"][0]["content"].split(" ", 6)[6] for body in node.asked]
        for node in (one, two)
    ]
    assert told[0] == told[1]


@pytest.mark.anyio
async def test_provenance_and_readings_are_stored_with_a_run(tmp_path: Path) -> None:
    async with serving(Node()) as url:
        await sweep(tmp_path / "db", [target(url)])
    store = Store(tmp_path / "db")
    run = next(store.runs())
    store.close()
    assert (run.source.gpus, run.source.host) == ("2× RTX 5090", "secret-host")
    assert (run.source.engine_versions, run.model.engine) == ("x 7", "x 7")
    assert (run.model.capabilities, run.before) == ("tools", DeviceState(5))
    assert (run.result.prompt_asked, run.result.prompt_tokens) == (8, 8)


@pytest.mark.anyio
async def test_a_target_that_is_down_is_said_and_the_others_are_measured(tmp_path: Path) -> None:
    async with serving(Node()) as url:
        targets = [target("http://127.0.0.1:1", "gone"), target(url)]
        outcome, notes = await sweep(tmp_path / "db", targets)
    assert outcome.stored == 2
    assert list(outcome.down) == ["gone"]
    assert any("gone is down" in note for note in notes.notes)


@pytest.mark.anyio
async def test_a_target_updated_in_the_middle_of_a_run_has_that_run_thrown_away(
    tmp_path: Path,
) -> None:
    node = Node(update_after=2)  # warm-up, then the first run
    async with serving(node) as url:
        outcome, notes = await sweep(tmp_path / "db", [target(url)])
    assert outcome.stored == 0
    assert outcome.put_off == 2
    assert any("now runs 2.0+abc" in note for note in notes.notes)


@pytest.mark.anyio
async def test_a_busy_node_is_waited_for_and_then_put_off(tmp_path: Path) -> None:
    node = Node(in_flight=1)
    async with serving(node) as url:
        outcome, notes = await sweep(tmp_path / "db", [target(url)])
    assert (outcome.stored, outcome.put_off, node.asked) == (0, 2, [])
    assert any("stays busy (m has 1 running" in note for note in notes.notes)


@pytest.mark.anyio
async def test_a_failed_run_is_stored_and_tried_again_by_the_next_sweep(tmp_path: Path) -> None:
    node = Node(say=chunk({"content": "a"}))  # ends without a finish reason
    async with serving(node) as url:
        first, _ = await sweep(tmp_path / "db", [target(url)])
        node.say = Node().say
        second, _ = await sweep(tmp_path / "db", [target(url)])
    assert (first.failed, first.put_off, second.stored) == (1, 1, 2)
    store = Store(tmp_path / "db")
    assert sum(not run.result.ok for run in store.runs()) == 1
    store.close()


@pytest.mark.anyio
async def test_an_endpoint_that_refuses_unknown_members_is_asked_without_them(
    tmp_path: Path,
) -> None:
    asked = []

    async def play(body: dict[str, Any], write: Write) -> None:
        path = body.pop("_path")
        if path == "/v1/models":
            await write(json_answer({"data": [{"id": "m"}]}))
        elif path != "/v1/chat/completions":
            await write(json_answer({}, 404))
        elif "ignore_eos" in body:
            await write(json_answer({"error": {"message": "unknown: ignore_eos"}}, 400))
        else:
            asked.append(body)
            await write(OK + Node().say)

    async with serving(play) as url:
        outcome, notes = await sweep(tmp_path / "db", [target(url, kind="openai")])
    assert outcome.stored == len(asked) == 2
    assert any("ignore_eos" in note for note in notes.notes)


@pytest.mark.anyio
async def test_a_cold_start_loads_the_model_again_even_when_it_fails() -> None:
    calls = []

    class Stubborn:
        name = "node"
        prober = Prober("http://127.0.0.1:1", None, 1)

        def __init__(self) -> None:
            self.extras: dict[str, object] = {}

        async def load(self, model: str, *, wait: bool = True) -> None:
            assert wait
            calls.append(("load", model))
            if len(calls) < 3:
                raise TargetDown("no memory")

        async def unload(self, model: str) -> None:
            calls.append(("unload", model))

    from helexa.bench.scenarios.base import Asked

    asked: Any = Asked(Stubborn(), "m", 4, "s", "r")  # type: ignore[arg-type]
    result = await by_name("cold").run(asked)
    assert (result.ok, result.error) == (False, "no memory")
    assert calls == [("unload", "m"), ("load", "m"), ("load", "m")]


@pytest.mark.anyio
async def test_a_stopped_sweep_has_the_model_loaded_that_it_took_away() -> None:
    calls: list[object] = []
    unloading = asyncio.Event()

    class Slow:
        name = "node"
        prober = Prober("http://127.0.0.1:1", None, 1)

        def __init__(self) -> None:
            self.extras: dict[str, object] = {}

        async def load(self, model: str, *, wait: bool = True) -> None:
            calls.append((model, wait))

        async def unload(self, model: str) -> None:
            unloading.set()
            await asyncio.Event().wait()

    from helexa.bench.scenarios.base import Asked

    for name, others, back in (
        ("cold", (), [("m", False)]),
        ("swap", ("n",), [("n", False), ("m", False)]),
    ):
        calls.clear()
        unloading.clear()
        asked: Any = Asked(Slow(), "m", 4, "s", "r", others)  # type: ignore[arg-type]
        running = asyncio.create_task(by_name(name).run(asked))
        await unloading.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert calls == back


def test_a_hung_target_delays_nobody(tmp_path: Path) -> None:
    async def hang(_body: dict[str, Any], _write: Write) -> None:
        await asyncio.sleep(30)

    async def both() -> Outcome:
        async with serving(hang) as stuck, serving(Node()) as url:
            slow = target(stuck, "stuck")

            async def impatient() -> Survey:
                raise TargetDown("did not answer within 10 s")

            slow.survey = impatient  # type: ignore[method-assign]
            return (await sweep(tmp_path / "db", [slow, target(url)]))[0]

    outcome = asyncio.run(both())
    assert outcome.stored == 2


@pytest.mark.anyio
async def test_a_model_that_is_not_there_is_said_and_not_called_done(tmp_path: Path) -> None:
    async def lists_another(body: dict[str, Any], write: Write) -> None:
        known = {"/version": {"version": "7"}, "/v1/models": {"data": [{"id": "other"}]}}
        await write(json_answer(known.get(body["_path"], {}), 200))

    async with serving(lists_another) as url:
        settings = TargetSettings("peer", "openai", url, models=("mine",))
        peer = OpenaiTarget(settings, None, 5, "bench 1")
        outcome, notes = await sweep(tmp_path / "db", [peer])
    assert outcome.missing == {"peer": ["mine"]}
    assert "peer does not list mine" in notes.notes


@pytest.mark.anyio
async def test_no_run_finds_the_prompt_of_another_in_a_cache(tmp_path: Path) -> None:
    """Not of another target with the same engine, nor of the build before that it outlived."""
    asked: list[dict[str, Any]] = []
    for build in ("b1", "b2"):
        node = Node(version=build)
        async with serving(node) as url:
            wanted = ScenarioSettings(
                prompt_sizes=(8,),
                max_tokens=4,
                concurrency_levels=(2,),
                names=("tools", "structured"),
            )
            settings = msgspec.structs.replace(SETTINGS, scenarios=wanted)
            both = [target(url), target(url, "again")]
            await sweep(tmp_path / "db", both, settings)
        asked += [body for body in node.asked if body["max_tokens"] == 4]  # no warm-ups
    said = [body["messages"][0]["content"] for body in asked]
    marks = [re.match(r"(?:[a-z] ){6}", text) for text in said]
    assert all(marks), said
    rest = [re.sub(r"^(?:[a-z] ){6}", "", text) for text in said]
    # Streams of one run differ in their words, other runs from the first letter on.
    assert len(set(said)) == len(said)
    assert max(rest.count(text) for text in rest) >= 4  # the same for everyone but for that
