"""Models from a hub, through real nodes: fetched, killed over, shared, told about, refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helexa import spark
from helexa.neuron.sources.fake.hub import FakeHub

MODEL = "org/spark-GGUF"
FILE = "spark-F16.gguf"
SIZE = spark.gguf_path().stat().st_size
SLOW = 1_500_000
PATIENCE_S = 60.0


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "hub" / MODEL
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(spark.gguf_path().read_bytes())
    (folder / "README.md").write_text("A model.")
    served = FakeHub(tmp_path / "hub").start()
    try:
        yield served
    finally:
        served.stop()


def settings(hub: FakeHub, cache: Path, more: str = "") -> str:
    return f'{more}\n[sources.hf]\nendpoint = "{hub.url}"\ncache_dir = "{cache}"\n'


def partial(cache: Path) -> int:
    """Bytes that have arrived of what is not whole yet."""
    return sum(path.stat().st_size for path in cache.rglob("*.incomplete"))


def downloaders(cache: Path) -> list[int]:
    """Processes that write into ``cache``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [str(link.readlink()) for link in place.iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(cache)) for link in links):
            found.append(int(place.parent.name))
    return found


def begin(node: Any, h: Any, cache: Path, most: int) -> None:
    """Start a load and return when ``most`` bytes have arrived."""
    answer = node.client.post("/models/load?wait=false", json={"model_id": MODEL})
    assert answer.status_code == 202, answer.text
    h.until(lambda: partial(cache) >= most, PATIENCE_S)


def answers(node: Any, h: Any) -> str:
    body = h.chat(model=MODEL, max_tokens=8)
    answer = node.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_model_is_fetched_from_a_hub_loaded_and_answers(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    node = start_node(settings(hub, tmp_path / "cache"))
    loaded = node.load(f"hf:{MODEL}", quant="f16")
    assert (loaded["id"], loaded["status"]) == (MODEL, "loaded")
    assert answers(node, h)
    h.until(lambda: "fetching" in node.log())  # a thread writes it
    named = h.chat(model=f"{MODEL}:F16", max_tokens=4)
    node.load(f"{MODEL}:F16")
    assert node.post("/v1/chat/completions", named).status_code == 200
    fetched = [r for r in hub.served.requests if r[1].startswith("/content/") and not r[2]]
    assert len(fetched) == 1, "the second name has the same files"
    hub.stop()
    command = ["doctor", MODEL, "--config", str(node.folder / "neuron.toml")]
    told = subprocess.run(
        [sys.executable, "-m", "helexa.cli", *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "from the cache" in told.stdout
    assert "cannot be reached" in " ".join(told.stdout.split())


def test_a_node_that_is_killed_in_mid_file_goes_on_where_it_was(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    hub.faults.drip = SLOW
    node = start_node(settings(hub, cache))
    begin(node, h, cache, 1_000_000)
    workers = downloaders(cache)
    assert workers
    node.stop(signal.SIGKILL)
    h.until(lambda: not any(h.alive(pid) for pid in workers), PATIENCE_S)
    arrived = partial(cache)
    assert 1_000_000 <= arrived < SIZE
    hub.faults.drip = None
    asked = len(hub.served.requests)
    node.start()
    node.load(MODEL)
    assert answers(node, h)
    ranges = [r for _, path, r in hub.served.requests[asked:] if path.startswith("/content/")]
    # Beside looks at its head, which name their end: no byte twice. What the hub has sent is no
    # measure, its old answer may still be on its way to nobody.
    assert [r for r in ranges if not r or r.endswith("-")] == [f"bytes={arrived}-"]


def test_two_nodes_with_one_cache_fetch_once(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    hub.faults.drip = 4 * SLOW
    nodes = [start_node(settings(hub, cache)) for _ in range(2)]
    loads = [threading.Thread(target=node.load, args=[MODEL]) for node in nodes]
    for load in loads:
        load.start()
    for load in loads:
        load.join(PATIENCE_S)
    assert all(answers(node, h) for node in nodes)
    fetched = [r for r in hub.served.requests if r[1].startswith("/content/") and not r[2]]
    assert len(fetched) == 1


def test_a_load_that_nobody_wants_any_more_stops_fetching_and_keeps_what_arrived(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    hub.faults.drip = SLOW
    node = start_node(settings(hub, cache))
    begin(node, h, cache, 500_000)
    assert node.post("/models/unload", {"model_id": MODEL}).status_code == 200
    assert downloaders(cache) == []
    assert partial(cache) >= 500_000
    assert node.get("/models") == []


def test_progress_is_in_the_nodes_list_and_its_events(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    hub.faults.drip = SLOW
    node = start_node(settings(hub, tmp_path / "cache"))
    seen: list[dict[str, Any]] = []
    with httpx.stream("GET", node.url + "/events", timeout=PATIENCE_S) as events:
        begin(node, h, tmp_path / "cache", 500_000)
        (entry,) = node.get("/models")
        assert entry["status"] == "loading"
        assert entry["download"]["bytes_total"] == SIZE
        refused = node.post("/v1/chat/completions", h.chat(model=MODEL))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert refused.json()["error"]["download"]["file"] == FILE
        hub.faults.drip = 4 * SLOW
        for line in events.iter_lines():
            if line.startswith("data: ") and '"load_progress"' in line:
                seen.append(json.loads(line[6:]))
            if line.startswith("data: ") and '"status":"loaded"' in line:
                break
    moving = [e for e in seen if "download" in e]
    assert {e["download"]["bytes_total"] for e in moving} == {SIZE}
    done = [e["download"]["bytes"] for e in moving]
    assert done == sorted(done)
    assert done[-1] == SIZE
    assert any(e["download"]["bytes_per_s"] > 0 and e["eta_s"] >= 0 for e in moving)
    assert "download" not in seen[-1], "the files are here by then"


def test_at_boot_what_cannot_succeed_is_said_once_and_the_rest_goes_on(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    models = "".join(
        f'[[default_models]]\nmodel_id = "{model}"\n'
        for model in (f"{MODEL}:Q2_K", "org/nothing-GGUF", MODEL)
    )
    retry = "[life]\nretry_secs = [0.05, 0.05]\n"
    node = start_node(settings(hub, tmp_path / "cache", models + retry))
    h.until(lambda: node.get("/health")["activation"]["completed"] == [MODEL], PATIENCE_S)
    activation = node.get("/health")["activation"]
    assert activation["state"] == "ready"
    failed = {f["model_id"]: f["error"] for f in activation["failed"]}
    assert "The nearest is F16" in failed[f"{MODEL}:Q2_K"]
    assert f"nearest it has is {MODEL}" in failed["org/nothing-GGUF"]
    asked = [path for _, path, _ in hub.served.requests if path.endswith("nothing-GGUF")]
    assert len(asked) == 1


def test_at_boot_a_hub_that_is_away_is_asked_again_until_it_is_there(
    start_node: Any, h: Any, hub: FakeHub, tmp_path: Path
) -> None:
    models = f'[[default_models]]\nmodel_id = "{MODEL}"\n[life]\nretry_secs = [0.05, 0.05]\n'
    hub.faults.statuses.extend([503] * 3)
    hub.faults.retry_after_s = 1
    node = start_node(settings(hub, tmp_path / "cache", models))
    h.until(lambda: node.get("/health")["activation"]["completed"] == [MODEL], PATIENCE_S)
    assert answers(node, h)


CORTEX = """
models_config = "{folder}/models.toml"
[gateway]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[[neurons]]
name = "node"
endpoint = "{url}"
"""


@pytest.fixture
def gateway(start_node: Any, hub: FakeHub, tmp_path: Path) -> Iterator[str]:
    """A gateway whose one model is at the hub, before one node."""
    node = start_node(settings(hub, tmp_path / "cache"))
    (tmp_path / "models.toml").write_text(f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\n')
    config = tmp_path / "cortex.toml"
    config.write_text(CORTEX.format(url=node.url, folder=tmp_path))
    command = [sys.executable, "-m", "helexa.cli", "cortex", "--config", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={"XDG_STATE_HOME": str(tmp_path)}
        )
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()
        assert line, (tmp_path / "log").read_text()
        yield json.loads(line)["url"]
        process.terminate()


def test_those_who_wait_at_the_gateway_see_the_download(gateway: str, h: Any, hub: FakeHub) -> None:
    h.until(lambda: MODEL in httpx.get(gateway + "/v1/models", timeout=PATIENCE_S).text, PATIENCE_S)
    hub.faults.drip = SLOW
    body = h.chat(model=MODEL, max_tokens=4, stream=True)
    comments: list[dict[str, Any]] = []
    refusals: list[dict[str, Any]] = []
    with httpx.stream(
        "POST", gateway + "/v1/chat/completions", json=body, timeout=PATIENCE_S
    ) as answer:
        lines = answer.iter_lines()
        for line in lines:
            if line.startswith(": helexa {"):
                comments.append(json.loads(line.removeprefix(": helexa ")))
            if any("download" in said for said in comments) and not refusals:
                plain = httpx.post(
                    gateway + "/v1/chat/completions",
                    json=h.chat(model=MODEL, max_tokens=4),
                    headers={"x-helexa-deadline-ms": "200"},
                    timeout=PATIENCE_S,
                )
                refusals.append({"status": plain.status_code} | plain.json()["error"])
                hub.faults.drip = None
            if line == "data: [DONE]":
                break
    told = [said["download"] for said in comments if "download" in said]
    assert told
    assert told[-1]["bytes_total"] == SIZE
    assert 0 < told[-1]["bytes"] <= SIZE
    (refused,) = refusals
    assert (refused["status"], refused["code"]) == (503, "model_loading")
    assert refused["download"]["bytes_total"] == SIZE
    assert "of its files" in refused["message"]


def test_an_operators_load_prints_lines_of_progress(gateway: str, h: Any, hub: FakeHub) -> None:
    h.until(lambda: MODEL in httpx.get(gateway + "/v1/models", timeout=PATIENCE_S).text, PATIENCE_S)
    hub.faults.drip = 2 * SLOW
    command = ["fleet", "load", MODEL, "--endpoint", gateway]
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", *command],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.decode().splitlines() if "fetched" in line]
    assert 1 <= len(lines) <= 40, done.stderr
    assert " of 5.5 MB at " in lines[-1]
