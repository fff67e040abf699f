"""The script that makes models for tests: what it writes is what it was asked for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from helexa.neuron.models.inspect import inspect

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("gguf")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import tiny_models

    return tiny_models


@pytest.mark.parametrize("shape", ["vision", "embedder", "reranker", "tiny"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    script: ModuleType, tmp_path: Path, shape: str
) -> None:
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        script.write(tmp_path / name / "m.gguf", shape, "q8_0", seed)
        files = sorted((tmp_path / name).iterdir())
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1] != written[2]
    assert sum(map(len, written[0])) < 4 << 20


def test_every_kind_is_read_as_what_it_is(tiny_models: Path) -> None:
    kinds = {
        kind: inspect(tiny_models / kind / f"{kind}.gguf", kind).capabilities
        for kind in ("vision", "embedder", "reranker")
    }
    assert kinds == {
        "vision": ("text", "tools", "reasoning", "vision"),
        "embedder": ("embeddings",),
        "reranker": ("rerank",),
    }
