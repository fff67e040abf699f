"""A node foretells what would become of models, and then does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder
from tests.neuron.system.conftest import until

from helexa.neuron.models.synthetic import Shape, write_model

SMALL = Shape(layers=4, embedding=256, feed_forward=512, heads=4, kv_heads=2, head_dim=64,
              vocab=1024, context=2048)  # fmt: skip
SPARK = "helexa/spark"


def test_a_load_becomes_what_was_foretold(start_node: Callable[..., Any], tmp_path: Path) -> None:
    path = write_model(tmp_path / "m-Q8_0.gguf", SMALL)
    node = start_node("[engines.llamacpp]\nslots = 2\n")
    told = node.post("/models/plan", {"model_id": str(path)}).json()
    assert (told["ok"], told["engine"], told["slots"]) == (True, "llamacpp", 2)
    assert node.get("/models") == []
    cold = node.get(f"/models/{path}/capabilities")
    loaded = node.load(str(path))
    assert loaded["limit"] == told["limit"] == cold["limit"]
    assert loaded["capabilities"] == told["capabilities"] == cold["capabilities"]
    warm = node.get(f"/models/{path}/capabilities")
    assert {name: cold[name] for name in warm} == warm


def test_what_cannot_be_run_is_foretold_with_the_loads_own_words(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "m", known.WHISPER)
    node = start_node("")
    told = node.post("/models/plan", {"model_id": str(folder)}).json()
    refused = node.post("/models/load", {"model_id": str(folder)})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == told["reason"] == "unsupported_operation"
    # The path may hold digits that a 4xx body hides, because clients retry on them.
    said = [text.partition(" cannot be served: ")[2] for text in (
        told["detail"], refused.json()["error"]["message"])]  # fmt: skip
    assert said[0] == said[1]
    assert "turns speech into text" in said[0]


def test_capabilities_of_a_model_that_is_nowhere_are_a_404(
    start_node: Callable[..., Any],
) -> None:
    node = start_node("")
    answer = node.client.get("/models//nowhere/at/all/capabilities")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    body = {"model_id": SPARK, "quantum": 1}
    assert node.post("/models/plan", body).status_code == 400


def test_a_boot_time_model_is_known_as_the_settings_have_it_when_it_is_not_loaded(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    write_model(tmp_path / "m-Q8_0.gguf", SMALL)
    write_model(tmp_path / "m-Q4_0.gguf", Shape(layers=2, embedding=256, vocab=1024, quant="Q4_0"))
    node = start_node(
        f'[[default_models]]\nmodel_id = "house"\nsource = "{tmp_path}"\nquant = "Q8_0"\n'
    )
    until(lambda: node.status("house") == "loaded", 60)
    assert node.post("/models/unload", {"model_id": "house"}).status_code == 200
    cold = node.get("/models/house/capabilities")
    assert (cold["quant"], cold["context_native"]) == ("Q8_0", SMALL.context)
    other = node.get(f"/models/house/capabilities?quant=Q4_0&source={tmp_path}")
    assert other["quant"] == "Q4_0"


def test_the_doctor_asks_a_node_elsewhere(start_node: Callable[..., Any]) -> None:
    node = start_node("[engines.llamacpp]\nslots = 3\n", secret="shh")

    def doctor(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "helexa.cli", "doctor", SPARK, "--endpoint", node.url]
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=60, check=False
        )

    told = json.loads(doctor("--key", "shh", "--json").stdout)
    assert (told["ok"], told["slots"]) == (True, 3)
    refused = doctor("--key", "wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "key" in refused.stderr


def test_a_models_own_engine_settings_go_before_the_nodes(
    start_node: Callable[..., Any],
) -> None:
    node = start_node("[engines.llamacpp]\nslots = 2\nextra = {cells = 1024}\n")
    spec = {"model_id": SPARK, "engine": {"slots": 3, "ctx": 1024, "extra": {"cells": 2048}}}
    told = node.post("/models/plan", spec).json()
    assert (told["slots"], told["limit"]["context"]) == (3, 1024)
    assert node.post("/models/load", spec).status_code == 200
    (figures,) = node.get("/health")["models"]
    assert (figures["max_in_flight"], figures["kv_total_tokens"]) == (3, 2048)


def test_a_load_that_cannot_work_leaves_the_model_as_it_is(start_node: Callable[..., Any]) -> None:
    node = start_node("")
    node.load(SPARK)
    engines = node.engines()
    for wrong, path in (
        ({"slot": 3}, "engine.slot"),
        ({"slots": 0}, "engine"),
        ({"extra": {"threads_batch": "x"}}, "engine"),
        ({"extra": {"n_ctx": 4096}}, "engine"),
    ):
        refused = node.post("/models/load", {"model_id": SPARK, "engine": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, path)
    for more in ({"harness": "nobody"}, {"source": "/nowhere.gguf"}):
        assert node.post("/models/load", {"model_id": SPARK, **more}).status_code in (400, 404)
    assert node.get("/models")[0]["status"] == "loaded"
    assert node.engines() == engines


def test_a_reload_may_have_the_memory_that_its_model_gives_up(
    start_node: Callable[..., Any],
) -> None:
    node = start_node("[memory]\nhost_mb = 400\n")
    assert node.load(SPARK)["vram_used_mb"] > 400 / 2, "not tight enough to tell"
    again = node.post("/models/load", {"model_id": SPARK, "engine": {"slots": 3}})
    assert again.status_code == 200, again.text
    assert node.post("/models/unload", {"model_id": SPARK}).status_code == 200
    (empty,) = node.get("/health")["devices"]
    assert empty["vram_free_mb"] == 400
