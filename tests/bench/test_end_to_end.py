"""A sweep over two real nodes and a server that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from tests.neuron.system.conftest import SPARK, NodeProcess, end_with_tests, until

from helexa.bench.store.store import Store
from helexa.spark import gguf_path


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[str]:
    script = Path(__file__).with_name("bare_llama.py")
    with (tmp_path / "bare.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(gguf_path())],
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=end_with_tests,  # noqa: PLW1509
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, (tmp_path / "bare.log").read_text()
            yield json.loads(line)["url"] + "/v1"
        finally:
            process.kill()
            process.wait(30)
            process.stdout.close()


def loaded(node: NodeProcess) -> bool:
    models = node.client.get("/models").json()
    return bool(models) and models[0]["status"] == "loaded"


@pytest.mark.slow  # two nodes and an engine start: about ten seconds
def test_two_nodes_and_a_bare_engine_are_measured_in_one_sweep(
    tmp_path: Path, foreign: str
) -> None:
    settings = f'[[default_models]]\nmodel_id = "{SPARK}"\nengine = {{ slots = 3 }}\n'
    nodes = []
    before = []
    targets = f'[[targets]]\nname = "bare"\nkind = "openai"\nendpoint = "{foreign}"\n'
    try:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            node = NodeProcess(folder, settings).start()
            nodes.append(node)
            until(partial(loaded, node))
            before.append(node.client.get("/models").json()[0])
            targets += f'[[targets]]\nname = "{name}"\nkind = "neuron"\nendpoint = "{node.url}"\n'
        config = tmp_path / "bench.toml"
        config.write_text(
            f"[bench]\nsamples_per_version = 1\niteration_pause_secs = 0\n"
            f'db_path = "{tmp_path}/db"\n[scenarios]\nprompt_sizes = [16]\nmax_tokens = 64\n'
            'concurrency_levels = [2]\nprefix_sizes = [32]\nnames = ["cold", "tools"]\n' + targets
        )
        done = subprocess.run(
            [sys.executable, "-m", "helexa.cli", "bench", "once", "--config", str(config)],
            capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        # A cold start is of the model as the operator had it loaded, and leaves it like that.
        after = [node.client.get("/models").json()[0] for node in nodes]
        assert [m["loaded_as"] for m in after] == [{"model_id": SPARK, "engine": {"slots": 3}}] * 2
        assert [m["limit"] for m in after] == [m["limit"] for m in before]
    finally:
        for node in nodes:
            node.stop()
    store = Store(tmp_path / "db")
    runs = list(store.runs())
    store.close()
    made = {(run.source.target, run.scenario) for run in runs}
    common = {"chat:16", "concurrency:2", "prefix:32", "tools"}
    assert made == {(t, s) for t in ("bare", "one", "two") for s in common} | {
        ("one", "cold"), ("two", "cold")
    }  # fmt: skip
    assert all(run.result.first_token_ms and run.result.decode_rate for run in runs)
    assert all(run.source.build for run in runs)
