"""``helexa client-config`` against a real gateway; each file is read as its client reads it."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.neuron.system.conftest import SPARK
from tests.system.rig import Stack

from helexa.cli.app import helexa
from helexa.cli.recipes import RECIPES


def run(stack: Stack, name: str, *more: str, key: str | None = "sk-open") -> Result:
    asked = ["client-config", name, "--endpoint", stack.url, *more]
    return CliRunner().invoke(helexa, [*asked, *(["--key", key] if key else [])])


def text(stack: Stack, name: str, *more: str, key: str | None = "sk-open") -> str:
    done = run(stack, name, *more, key=key)
    assert done.exit_code == 0, done.output
    assert RECIPES[name].goes_to in done.stderr
    return done.stdout


def limit(stack: Stack) -> Any:
    return stack.get(f"/v1/models/{SPARK}")["limit"]


def test_opencode_gets_the_limits_it_cannot_ask_for(stack: Stack) -> None:
    found = json.loads(text(stack, "opencode"))
    provider = found["provider"]["helexa"]
    assert found["model"] == f"helexa/{SPARK}"
    assert provider["options"] == {"baseURL": f"{stack.url}/v1", "apiKey": "{env:HELEXA_KEY}"}
    told = limit(stack)
    assert provider["models"][SPARK]["limit"] == {
        "context": told["context"],
        "output": told["output"],
    }
    assert provider["models"][SPARK]["tool_call"] is True
    assert {SPARK, "helexa/small"} <= set(provider["models"])


def test_codex_speaks_responses_and_takes_the_key_from_the_environment(stack: Stack) -> None:
    found = tomllib.loads(text(stack, "codex"))
    provider = found["model_providers"][found["model_provider"]]
    assert provider == {
        "name": "helexa", "base_url": f"{stack.url}/v1", "wire_api": "responses",
        "env_key": "HELEXA_KEY",
    }  # fmt: skip
    assert found["model"] == SPARK
    assert found["model_context_window"] == limit(stack)["context"]


def test_zed_claude_code_and_qwen_code_read_json(stack: Stack) -> None:
    zed = json.loads(text(stack, "zed"))
    [model, *_] = zed["language_models"]["openai_compatible"]["helexa"]["available_models"]
    assert model["max_tokens"] == limit(stack)["context"]
    claude = json.loads(text(stack, "claude-code"))
    assert claude["env"]["ANTHROPIC_BASE_URL"] == stack.url
    assert claude["env"]["ANTHROPIC_AUTH_TOKEN"] == "sk-open"
    qwen = json.loads(text(stack, "qwen-code"))
    assert qwen["security"]["auth"]["baseUrl"] == f"{stack.url}/v1"


def test_editors_are_told_how_to_start_the_agent(stack: Stack) -> None:
    zed = json.loads(text(stack, "zed"))["agent_servers"]["helexa"]
    jetbrains = json.loads(text(stack, "jetbrains"))["agent_servers"]["helexa"]
    assert zed.pop("type") == "custom"
    assert jetbrains["env"].pop("HELEXA_ACP_API_KEY") == "sk-open"
    assert zed == jetbrains
    assert "sk-open" not in text(stack, "zed")
    asked = subprocess.run(
        [sys.executable, "-m", "helexa.cli", *zed["args"], "--doctor"],
        env=os.environ | zed["env"] | {"HELEXA_ACP_API_KEY": "sk-open"},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert f"would use environment:{SPARK}" in asked.stdout


def test_aider_gets_its_settings_and_its_limits(stack: Stack) -> None:
    lines = dict(line.split(": ", 1) for line in text(stack, "aider").splitlines())
    assert json.loads(lines["model"]) == f"openai/{SPARK}"
    told = limit(stack)
    found = json.loads(text(stack, "aider-models"))[f"openai/{SPARK}"]
    assert found["max_input_tokens"] == told["context"]
    assert found["max_output_tokens"] == told["output"]


@pytest.mark.parametrize("name", ["openai", "anthropic", "langchain"])
def test_python_modules_are_python(stack: Stack, name: str) -> None:
    ast.parse(text(stack, name))


def test_the_modules_of_the_sdks_work_as_they_are(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELEXA_KEY", "sk-open")
    spaces: dict[str, dict[str, Any]] = {"openai": {}, "anthropic": {}}
    for name, space in spaces.items():
        exec(text(stack, name), space)
    ask: Any = [{"role": "user", "content": "Repeat: house"}]
    with spaces["openai"]["client"] as client:
        model = spaces["openai"]["MODEL"]
        answer = client.chat.completions.create(model=model, messages=ask, max_tokens=8)
        assert answer.choices[0].message.content
    with spaces["anthropic"]["client"] as client:
        model = spaces["anthropic"]["MODEL"]
        assert client.messages.create(model=model, messages=ask, max_tokens=8).content


def test_a_file_is_written_for_its_owner_only_and_never_over_another(
    stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "settings.json"
    assert run(stack, "claude-code", "--output", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = run(stack, "claude-code", "--output", str(file))
    assert again.exit_code == 1
    assert "exists" in again.output


def test_another_model_may_be_named_and_an_unknown_one_is_refused(stack: Stack) -> None:
    assert json.loads(text(stack, "qwen-code", "--model", "helexa/small"))["model"] == {
        "name": "helexa/small"
    }
    refused = run(stack, "codex", "--model", "none/such")
    assert refused.exit_code == 1
    assert SPARK in refused.output


def test_without_a_key_none_is_asked_for(stack: Stack) -> None:
    assert (
        "env_key" not in tomllib.loads(text(stack, "codex", key=None))["model_providers"]["helexa"]
    )
    found = json.loads(text(stack, "opencode", key=None))
    assert found["provider"]["helexa"]["options"]["apiKey"] == "any"


def test_pi_and_llm_get_every_model_with_what_it_can(stack: Stack) -> None:
    told = limit(stack)
    [model, *_] = json.loads(text(stack, "pi"))["providers"]["helexa"]["models"]
    assert model["id"] == SPARK
    assert model["contextWindow"] == told["context"]
    assert model["input"] == ["text"]
    lines = text(stack, "llm").splitlines()
    assert f'- model_id: "{SPARK}"' in lines
    assert "  supports_tools: true" in lines
    assert "  api_key_name: helexa" in lines
    assert "  api_key_name: helexa" not in text(stack, "llm", key=None).splitlines()
