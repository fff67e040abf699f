"""What the gateway knows of models that were never loaded: from their files, through the node."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder
from tests.neuron.system.conftest import chat, until
from tests.system.rig import StartStack

from helexa.cli.app import helexa
from helexa.spark import gguf_path


@pytest.mark.slow(reason="starts a node with its gateway, and loads a model")
def test_cold_models_are_what_their_files_say(start_stack: StartStack, tmp_path: Path) -> None:
    model = shutil.copy(gguf_path(), tmp_path / "m.gguf")
    speech = write_folder(tmp_path / "speech", known.WHISPER)
    stack = start_stack(load=False)
    catalogue = "".join(f"[[models]]\nid = '{name}'\n" for name in (model, speech))
    (stack.cortex.folder / "models.toml").write_text(catalogue)

    cold = until(lambda: _listed(stack.get("/v1/models"), str(model)))
    assert cold["capabilities"] == ["text", "tools", "reasoning"]
    assert (cold["loaded"], cold["tool_call"], cold["reasoning"]) == (False, True, True)
    assert cold["max_model_len"] == cold["limit"]["input"] + cold["limit"]["output"]
    assert stack.node.get("/models") == []

    refused = until(lambda: (a := stack.ask(chat(model=str(speech)))).status_code == 400 and a)
    assert "turns speech into text" in refused.json()["error"]["message"]
    assert _listed(stack.get("/v1/models"), str(speech)) is None

    told = stack.admin("/admin/plan", {"model": str(model)}).json()["nodes"]["one"]
    assert (told["ok"], told["engine"], told["limit"]) == (True, "llamacpp", cold["limit"])
    shown = CliRunner().invoke(
        helexa,
        ["fleet", "plan", str(speech), "--endpoint", stack.url, "--key", "sk-root"],
    )
    assert shown.exit_code == 1
    assert "turns speech into text" in shown.output

    assert stack.ask(chat(model=str(model), max_tokens=4)).status_code == 200
    warm = until(lambda: (m := stack.get(f"/v1/models/{model}"))["loaded"] and m)
    for name in ("capabilities", "tool_call", "reasoning", "limit"):
        assert warm[name] == cold[name]
    assert stack.admin("/admin/plan", {"model": str(model)}).json()["loaded"] == ["one"]


def _listed(models: dict[str, list[dict[str, object]]], name: str) -> dict[str, object] | None:
    """The entry once its files have been looked at."""
    found = next((m for m in models["data"] if m["id"] == name), None)
    return found if found is not None and found["capabilities"] else None
