"""A node that serves with vLLM; and nothing stays behind when it is killed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.neuron.engines.candidates import installed_vllm
from tests.neuron.system.conftest import NodeProcess, alive, until

from helexa import spark
from helexa.neuron.engines.orphans import group_of

pytestmark = [pytest.mark.engines, pytest.mark.timeout(420)]

MODEL = spark.MODEL_ID
SHARED_MEMORY = Path("/dev/shm")
SETTINGS = """
[engines.vllm]
python = "{python}"
args = ["--max-num-seqs", "3"]
[admission]
reserve_seats = 0
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeProcess]:
    """A node with vLLM; sockets in a folder of their own, for their paths have to be short."""
    build = installed_vllm()
    if build is None:
        pytest.skip("vLLM is not installed; run: make vllm-env")
    run = tempfile.mkdtemp(prefix="hx")
    monkeypatch.setenv("XDG_RUNTIME_DIR", run)
    found = NodeProcess(tmp_path, SETTINGS.format(python=build.python)).start()
    found.client.timeout = 400
    try:
        yield found
    finally:
        found.process.kill()  # type: ignore[union-attr]
        found.stop()
        shutil.rmtree(run)


def said(node: NodeProcess, text: str) -> tuple[str, dict[str, Any]]:
    """A streamed answer and its usage chunk."""
    body = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": text}], "temperature": 0}  # fmt: skip
    lines = node.post("/v1/chat/completions", body).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert lines[-2:] in (["data: [DONE]", ""], ["", "data: [DONE]"])
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content", "") for delta in deltas), chunks[-1]


def test_a_node_serves_with_vllm_and_nothing_is_left_when_it_is_killed(node: NodeProcess) -> None:
    assert node.get("/version")["engines"]["vllm"] == installed_vllm().version  # type: ignore[union-attr]
    assert "vllm" in node.get("/discovery")["harnesses"]
    entry = node.load(MODEL, harness="vllm", tensor_parallel=2)
    assert (entry["harness"], entry["limit"]["context"]) == ("vllm", 8192)
    assert {"text", "tools", "reasoning"} <= set(entry["capabilities"])
    assert entry["vram_used_mb"] > 500  # of all its processes
    assert node.figures(MODEL)["max_in_flight"] == 3

    text, end = said(node, "Repeat: house river")
    assert text == "house river"
    assert end["usage"]["completion_tokens"] == end["timings"]["predicted_n"] > 0
    assert end["timings"]["prompt_ms"] > 0

    leader = node.engines()[0]
    pids = group_of(leader)
    folder = next(Path(tempfile.gettempdir()).glob("hx*/helexa-vllm-*"))
    noted = [Path(line) for line in (folder / "shared-memory").read_text().splitlines()]
    assert len(pids) >= 4  # server, scheduler, two workers
    assert any(path.exists() for path in noted)
    node.process.kill()  # type: ignore[union-attr]
    until(lambda: not any(alive(pid) for pid in pids), 30)
    until(lambda: not folder.exists(), 30)
    assert not [path for path in noted if path.exists()]
    assert not list(SHARED_MEMORY.glob(f"*helexa-{leader}-*"))
