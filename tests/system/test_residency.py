"""Cold loads and swaps on real processes: a gateway, a node with room for one of two models.

The node is ``benchmarks/slow_neuron.py``: everything of it is real but the engine, which takes a
second to load and none of the processor. That it refuses a second model is its own plan.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.neuron.system.conftest import chat, end_with_tests, until
from tests.system.rig import CHAT, CortexProcess

from helexa.cli.app import helexa
from helexa.cortex.residency.world import Rules
from helexa.spark import gguf_path

SLOW = Path(__file__).parents[2] / "benchmarks" / "slow_neuron.py"
LOAD_S, RESIDENT_S = 0.2, 1.0
KNOBS = json.dumps({"start_s": LOAD_S, "decode_tok_s": 200.0, "hold_mb": 33})
NODE = """
[engines.llamacpp]
slots = 4
ctx = 1024
[memory]
host_mb = 100
[prefix_cache]
budget_mb = 0
[admission]
reserve_seats = 0
"""


@dataclass
class Swap:
    """Gateway, node, and two models that do not fit together."""

    cortex: CortexProcess
    node: subprocess.Popen[bytes]
    node_url: str
    models: list[str]
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.cortex.url, timeout=60)

    def ask(self, model: str, **headers: str) -> httpx.Response:
        """One plain request."""
        body = chat("Say: one two", model=model, max_tokens=4)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(CHAT, json=body, headers=fields)

    def said(self, event: str, model: str | None = None) -> list[dict[str, Any]]:
        """The gateway's log lines of one kind, about one model or any."""
        lines = [line for line in self.cortex.lines() if line["event"] == event]
        return [line for line in lines if model in (None, line.get("model"))]

    def fleet(self) -> Any:
        """``GET /admin/fleet``."""
        return self.client.get("/admin/fleet").json()

    def called(self, name: str) -> bool:
        """Whether there is one node, of that name."""
        return [node["name"] for node in self.fleet()["nodes"]] == [name]

    def cold(self) -> str:
        """A model that is not loaded."""
        return str(until(lambda: next(iter(set(self.models) - set(self._loaded())), None)))

    def _loaded(self) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet()["nodes"][0]["models"]
        return found

    def swapped(self) -> None:
        """The first model is loaded, and it is known how long a load of the second takes."""
        first, second = self.models
        assert self.ask(second).status_code == 200
        if not until(lambda: self._loaded().get(second)).get("load_s"):  # not from this node
            assert self.ask(first).status_code == 200
            assert self.ask(second).status_code == 200
        assert self.ask(first).status_code == 200

    def configure(self, text: str) -> None:
        """Have the gateway follow its file."""
        (self.cortex.folder / "cortex.toml").write_text(text)
        os.kill(self.cortex.pid, signal.SIGHUP)


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swap]:
    folder = tmp_path_factory.mktemp("swap")
    models = [str(folder / f"{name}.gguf") for name in ("a", "b")]
    for model in models:
        shutil.copy(gguf_path(), model)
    (folder / "neuron.toml").write_text(f"port = 0\nstate_dir = '{folder}/state'\n{NODE}")
    with (folder / "neuron.log").open("ab") as log:
        node = subprocess.Popen(
            [sys.executable, str(SLOW), KNOBS, "--config", str(folder / "neuron.toml")],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ),
            preexec_fn=end_with_tests,  # noqa: PLW1509 - the tests' main thread starts it
        )
    assert node.stdout is not None
    readable, _, _ = select.select([node.stdout], [], [], 60)
    assert readable, (folder / "neuron.log").read_text()
    url = json.loads(node.stdout.readline())["url"]
    (folder / "cortex").mkdir()
    catalogue = "".join(f'[[models]]\nid = "{m}"\nharness = "llamacpp"\n' for m in models)
    config = (
        f"[residency]\nmin_residency_secs = {RESIDENT_S}\n"
        f'[[neurons]]\nname = "one"\nendpoint = "{url}"\n'
    )
    cortex = CortexProcess(folder / "cortex", config, catalogue).start()
    made = Swap(cortex, node, url, models)
    until(lambda: made.client.get("/v1/models").json()["data"])
    yield made
    made.client.close()
    cortex.stop()
    node.send_signal(signal.SIGTERM)
    node.wait(60)
    node.stdout.close()


def test_eight_clients_of_a_cold_model_cause_one_load_and_get_eight_answers(swap: Swap) -> None:
    cold = swap.cold()
    loads = len(swap.said("model loaded", cold))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: swap.ask(cold), range(8)))
    assert [a.status_code for a in answers] == [200] * 8
    assert [a.headers["x-helexa-cold-start"] for a in answers] == ["true"] * 8
    # The answers may come before the line: they go by the listing.
    until(lambda: len(swap.said("model loaded", cold)) > loads)
    assert "x-helexa-cold-start" not in swap.ask(cold).headers
    assert len(swap.said("model loaded", cold)) == loads + 1


def test_the_second_model_is_made_room_for_and_the_first_is_never_a_404(swap: Swap) -> None:
    first, second = swap.models
    assert swap.ask(first).status_code == 200
    before = len(swap.said("model unloaded", first))
    statuses: list[int] = []
    over = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=swap.cortex.url, timeout=60) as client:
            while not over.wait(0.02):
                statuses.append(client.get(f"/v1/models/{first}").status_code)

    watching = threading.Thread(target=watch)
    watching.start()
    assert swap.ask(second).status_code == 200
    over.set()
    watching.join()
    assert set(statuses) == {200}
    (gone,) = until(lambda: swap.said("model unloaded", first)[before:])
    assert gone["why"] == f"room for {second}"
    metrics = httpx.get(swap.cortex.ready["metrics_url"], timeout=60).text
    assert f'cortex_evictions_total{{model="{first}",node="one"}} {before + 1}\n' in metrics


def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_place_and_time(swap: Swap) -> None:
    swap.swapped()

    def soon() -> httpx.Response | None:
        began = time.monotonic()
        answer = swap.ask(swap.models[1], x_helexa_deadline_ms="500")
        return answer if time.monotonic() - began < 0.5 else None

    refused: httpx.Response = until(soon)  # others use this machine too
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["position"]) == (503, "model_loading", 1)
    assert error["eta_s"] > 0.5


def test_two_models_that_alternate_are_swapped_at_most_once_a_turn(swap: Swap) -> None:
    """A client for each model that never stops asking: who waits is bounded, and so are swaps."""
    over = threading.Event()
    waits: list[float] = []
    failed: list[str] = []
    swaps_before = len(swap.said("model unloaded"))

    def client(model: str) -> None:
        while not over.is_set():
            began = time.monotonic()
            answer = swap.ask(model)
            waits.append(time.monotonic() - began)
            if answer.status_code != 200:
                failed.append(answer.text)

    clients = [threading.Thread(target=client, args=(m,)) for m in swap.models for _ in range(2)]
    for each in clients:
        each.start()
    until(lambda: len(swap.said("model unloaded")) >= swaps_before + 3, 60)
    over.set()
    for each in clients:
        each.join()
    assert not failed
    loaded = [_at(line) for line in swap.said("model loaded")]
    gone = [_at(line) for line in swap.said("model unloaded")]
    gone = gone[swaps_before : swaps_before + 3]  # afterwards nobody asks any more
    turn = Rules(min_residency_s=RESIDENT_S).turn(LOAD_S)
    for left in gone[1:]:
        came = max(at for at in loaded if at < left)
        assert left - came >= turn - 0.2
    assert all(after - before >= turn for before, after in pairwise(gone))


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["ts"]).timestamp()


def typed(swap: Swap, *words: str, status: int = 0) -> Result:
    """``helexa fleet``, typed by a person on the gateway's machine."""
    done = CliRunner().invoke(helexa, ["fleet", *words, "--endpoint", swap.cortex.url])
    assert done.exit_code == status, done.output
    return done


def test_fleet_load_shows_progress_until_the_model_serves(swap: Swap) -> None:
    kept, gone = swap.models  # there is no room for both
    assert swap.ask(kept).status_code == 200
    done = typed(swap, "load", gone)
    assert done.stdout == f"{gone}: loaded on one\n"
    assert f"{gone}: place 1" in done.stderr  # with a time only where one was learned
    assert typed(swap, "load", gone).stdout == f"{gone}: loaded already\n"
    typed(swap, "load", "nobody/knows", status=1)


def test_fleet_status_shows_nodes_memory_models_and_what_they_are(swap: Swap) -> None:
    swap.ask(swap.models[0])
    shown = typed(swap, "status").stdout
    assert f"one  {swap.node_url}  reachable" in shown
    assert " of 100 MiB" in shown
    assert f"{swap.models[0]}  loaded" in shown
    assert "nobody waits for a model" in shown

    def listed() -> Any:
        found = json.loads(typed(swap, "status", "--json").stdout)
        return found["nodes"][0]["models"][swap.models[0]]

    until(lambda: not listed()["busy"])
    model = listed()
    assert (model["servable"], model["closing"]) == (True, False)
    assert (model["breaker"], model["priority"]) == ("closed", 100)
    assert model["load_s"] >= LOAD_S


def test_who_waits_for_a_swap_is_seen_with_place_and_time(swap: Swap) -> None:
    swap.swapped()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(swap.ask, swap.models[1]) for _ in range(3)]
        (line,) = until(lambda: [line for line in swap.fleet()["waiting"] if "eta_s" in line])
        assert (line["model"], line["position"]) == (swap.models[1], 1)
        assert line["eta_s"] > 0
        assert f"{swap.models[1]}" in typed(swap, "status").stdout
        assert [a.result().status_code for a in asked] == [200] * 3


def test_fleet_explain_prints_why_a_request_went_where_it_went(swap: Swap) -> None:
    answer = swap.ask(swap.models[1])
    shown = typed(swap, "explain", answer.headers["x-request-id"]).stdout
    assert "went to one: the only one that has it" in shown
    typed(swap, "explain", "nonsense", status=1)


def test_fleet_drain_and_undrain_stop_and_start_new_work(swap: Swap) -> None:
    assert typed(swap, "drain", "one").stdout == "one takes no new work\n"
    assert "draining" in typed(swap, "status").stdout
    assert swap.ask(swap.models[1]).status_code == 503
    assert typed(swap, "undrain", "one").stdout == "one takes work again\n"
    assert swap.ask(swap.models[1]).status_code == 200


@pytest.fixture
def configured(swap: Swap) -> Iterator[str]:
    """What the gateway's file says, and says again afterwards."""
    text = (swap.cortex.folder / "cortex.toml").read_text()
    yield text
    for name in ("other", "one"):  # a file that says what it said changes nothing
        swap.configure(text.replace('name = "one"', f'name = "{name}"'))
        until(partial(swap.called, name))
    until(lambda: swap.ask(swap.models[1]).status_code == 200)


def test_nodes_are_added_and_removed_while_the_gateway_runs(swap: Swap, configured: str) -> None:
    refused = typed(swap, "add", "two", swap.node_url, status=1)
    assert "two neurons have the endpoint" in refused.stderr
    assert typed(swap, "remove", "one").stdout == "one removed\n"
    assert swap.fleet()["nodes"] == []
    assert swap.ask(swap.models[1]).status_code in (404, 503)
    typed(swap, "add", "again", swap.node_url)
    until(lambda: swap.ask(swap.models[1]).status_code == 200)
    assert swap.fleet()["nodes"][0]["origin"] == "admin"
    typed(swap, "remove", "again")


def test_cortex_toml_is_followed_when_it_changes_and_a_bad_one_changes_nothing(
    swap: Swap, configured: str
) -> None:
    swap.configure(configured + '[[neurons]]\nname = "one"\nendpoint = "nonsense"\n')
    until(lambda: swap.said("changed nodes refused; they stay as they are"))
    assert swap.called("one")
    swap.configure(configured.replace('name = "one"', 'name = "renamed"'))
    until(lambda: swap.called("renamed"))
    until(lambda: swap.ask(swap.models[1]).status_code == 200)
