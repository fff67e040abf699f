"""Other people's clients, several versions of each, as real processes against a real stack."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.sdks.conftest import node_modules, python_target
from tests.system.rig import Stack

from helexa.cli.app import helexa

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(400)]

HERE = Path(__file__).parent


def run(*command: str, cwd: Path | None = None, **environ: str) -> str:
    """Standard output of a client that must end well."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-3000:]
    return done.stdout


@pytest.mark.parametrize("version", ["openai>=1.99,<2", "openai>=2,<3", "openai>=3,<4"])
def test_openai_for_python(stack: Stack, cache: Path, version: str) -> None:
    folder = python_target(cache, version)
    said = run(
        sys.executable, "-S", str(HERE / "openai_python.py"), stack.url, "sk-open",
        PYTHONPATH=str(folder),
    )  # fmt: skip
    assert said.count("ok ") == 10


@pytest.mark.parametrize("version", ["anthropic>=0.60,<1", "anthropic>=1,<2", "anthropic>=2,<3"])
def test_anthropic_for_python(stack: Stack, cache: Path, version: str) -> None:
    folder = python_target(cache, version)
    said = run(
        sys.executable, "-S", str(HERE / "anthropic_python.py"), stack.url, "sk-open",
        PYTHONPATH=str(folder),
    )  # fmt: skip
    assert said.count("ok ") == 10


def node(stack: Stack, folder: Path, script: str) -> str:
    """Run a script with the modules of a folder."""
    shutil.copy(HERE / script, folder / script)
    return run("node", script, stack.url, "sk-open", cwd=folder)


def test_openai_for_node(stack: Stack, cache: Path) -> None:
    assert node(stack, node_modules(cache, "openai@7"), "openai_node.mjs").count("ok ") == 8


def test_anthropic_for_node(stack: Stack, cache: Path) -> None:
    folder = node_modules(cache, "@anthropic-ai/sdk@1")
    assert node(stack, folder, "anthropic_node.mjs").count("ok ") == 7


@pytest.mark.parametrize(
    "versions",
    [
        ("ai@6", "@ai-sdk/openai@3", "@ai-sdk/anthropic@3", "@ai-sdk/openai-compatible@2"),
        ("ai@7", "@ai-sdk/openai@4", "@ai-sdk/anthropic@4", "@ai-sdk/openai-compatible@3"),
    ],
    ids=["6", "7"],
)
def test_ai_sdk(stack: Stack, cache: Path, versions: tuple[str, ...]) -> None:
    said = node(stack, node_modules(cache, *versions, "zod@4"), "ai_sdk.mjs")
    assert said.count("ok ") == 15


def test_langchain_with_the_module_we_wrote(stack: Stack, cache: Path, tmp_path: Path) -> None:
    folder = python_target(cache, "langchain-openai")
    file = tmp_path / "model.py"
    asked = ["client-config", "langchain", "--endpoint", stack.url, "--key", "sk-open"]
    written = CliRunner().invoke(helexa, [*asked, "--output", str(file)])
    assert written.exit_code == 0, written.output
    said = run(
        sys.executable, "-S", str(HERE / "langchain_python.py"), str(file),
        PYTHONPATH=str(folder), HELEXA_KEY="sk-open",
    )  # fmt: skip
    assert said.count("ok ") == 4
