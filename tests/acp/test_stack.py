"""The agent on the real stack: gateway, node and the built-in model, in all three dialects."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acp.editor import environment, opened

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.anyio]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("up")
    ports = [word for name in ("", "neuron-", "metrics-") for word in (f"--{name}port", "0")]
    process = subprocess.Popen(
        [sys.executable, "-m", "helexa.cli", "up", *ports, "--state-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], 60)
        assert readable
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
async def test_spark_answers_in_the_editor_whatever_the_dialect(
    stack: str, tmp_path: Path, wire: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[endpoints]]\nname = "here"\nbase_url = "{stack}/v1"\nwire_api = "{wire}"\n'
        'default_model = "helexa/spark"\nmax_tokens = 64\n'
    )
    async with opened(
        "", tmp_path, work, HELEXA_ACP_CONFIG_PATH=str(config), HELEXA_ACP_MAX_TOKENS=""
    ) as session:
        options = {option.id: option for option in session.state.config_options}
        assert options["model"].current_value == "here:helexa/spark"
        answer = await session.prompt("What is the capital of France?")
        editor = session.editor
        assert answer.stop_reason in ("end_turn", "max_tokens", "max_turn_requests")
        assert "cannot answer" not in editor.text()
        assert editor.text() or editor.calls()
        usage = next(u for u in editor.updates if u.session_update == "usage_update")
        assert usage.used > 100
        assert answer.usage.output_tokens > 0


def test_the_doctor_says_what_was_found_and_tries_it(stack: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "helexa.cli", "acp", "--doctor"]
    env = environment(tmp_path, f"{stack}/v1")
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would use environment:helexa/spark" in done.stdout
    assert "it answered: " in done.stdout
    gone = environment(tmp_path, "http://127.0.0.1:1")
    done = subprocess.run(
        command, capture_output=True, text=True, env=gone, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "helexa up" in done.stdout
