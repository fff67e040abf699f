"""Facts of a safetensors folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helexa.neuron.models.folder import inspect_folder
from helexa.neuron.models.gguf import BadModelFile
from helexa.neuron.models.inspect import inspect
from helexa.spark import gguf_path, safetensors_dir


def test_both_forms_of_the_built_in_model_agree() -> None:
    folder, file = inspect_folder(safetensors_dir(), "m"), inspect(gguf_path(), "m")
    for name in ("layers", "kv_layers", "kv_heads", "head_dim_k", "embedding_dim", "vocab",
                 "context_native", "capabilities", "think_markers", "thinking_variable", "tied",
                 "kv_elements", "feed_forward", "heads"):  # fmt: skip
        assert getattr(folder, name) == getattr(file, name), name
    assert folder.format == "safetensors"
    assert inspect(safetensors_dir(), "m") == folder


def test_a_truncated_weight_file_says_what_it_needs(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(safetensors_dir(), folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BadModelFile, match="truncated"):
        inspect_folder(folder, "m")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"config\.json"):
        inspect_folder(tmp_path, "m")
