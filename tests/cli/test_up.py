"""``helexa up`` as a newcomer meets it: real processes, the built-in model, the examples."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from helexa import spark

ROOT = Path(__file__).resolve().parents[2]
START_SECS = 60.0
pytest.importorskip("xllamacpp")


class Up(NamedTuple):
    process: subprocess.Popen[str]
    line: dict[str, Any]
    seconds: float

    @property
    def environ(self) -> dict[str, str]:
        return os.environ | {
            "OPENAI_BASE_URL": f"{self.line['url']}/v1",
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_BASE_URL": str(self.line["url"]),
            "ANTHROPIC_API_KEY": "any",
            "NO_PROXY": "127.0.0.1",
        }


@contextlib.contextmanager
def household(*models: str, **environ: str) -> Iterator[Up]:
    ports = ("--port", "0", "--neuron-port", "0", "--metrics-port", "0")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "helexa.cli", "up", "--log-level", "warning", *ports, *models],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environ,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], START_SECS)[0], "no ready line"
        text = process.stdout.readline()
        if not text:
            pytest.fail(process.communicate(timeout=90)[1])
        yield Up(process, json.loads(text), time.monotonic() - began)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with household() as running:
        yield running


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=90) as answer:
        return json.load(answer)


def run(up: Up, *command: str) -> str:
    done = subprocess.run(
        command, env=up.environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_ready_line_says_where_everything_is(up: Up) -> None:
    assert up.line["ready"] is True
    assert up.line["role"] == "up"
    assert get(f"{up.line['url']}/health")["status"] == "ok"
    assert get(f"{up.line['neuron_url']}/models")
    with urllib.request.urlopen(up.line["metrics_url"], timeout=90) as answer:
        assert b"cortex_" in answer.read()


def test_ready_means_the_model_is_loaded(up: Up) -> None:
    model = get(f"{up.line['url']}/v1/models/helexa/spark")
    assert model["loaded"] is True
    assert model["limit"]["context"] > 0


def test_the_build_says_its_commit_on_gateway_and_node(up: Up) -> None:
    for url in (up.line["url"], up.line["neuron_url"]):
        version = get(f"{url}/version")
        assert version["package_version"]
        assert version["git_sha"]


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "sdk").glob("*.py")), ids=str)
def test_sdk_examples_run(up: Up, example: Path) -> None:
    assert run(up, sys.executable, str(example)).strip()


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "curl").glob("*.sh")), ids=str)
def test_curl_examples_run(up: Up, example: Path) -> None:
    assert run(up, "sh", str(example)).strip()


def blocks(page: str, language: str, word: str) -> list[str]:
    """Code blocks of a page that contain ``word``."""
    text = (ROOT / page).read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if word in block]


@pytest.mark.parametrize(
    ("page", "language", "word"),
    [
        ("README.md", "bash", "curl"),
        ("README.md", "python", "OpenAI"),
        ("docs/quickstart.md", "bash", "OPENAI_BASE_URL"),
    ],
)
def test_what_a_page_tells_a_newcomer_to_type_works(
    up: Up, page: str, language: str, word: str
) -> None:
    found = blocks(page, language, word)
    assert found
    for block in found:
        typed = block.replace("http://127.0.0.1:31313", up.line["url"])
        typed = typed.replace("curl ", "curl -sS --fail-with-body ")
        program = (sys.executable, "-c") if language == "python" else ("bash", "-ec")
        assert run(up, *program, typed).strip()


def test_a_model_file_of_ones_own_is_loaded_and_answers(up: Up, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    shutil.copy(spark.gguf_path(), mine)
    (block,) = blocks("docs/quickstart.md", "bash", "models/load")
    typed = block.replace("http://127.0.0.1:13131", up.line["neuron_url"])
    typed = typed.replace("/models/Qwen3-1.7B-Q8_0.gguf", str(mine))
    assert json.loads(run(up, "bash", "-ec", typed))["status"] == "loaded"
    deadline = time.monotonic() + 60
    while str(mine) not in {m["id"] for m in get(f"{up.line['url']}/v1/models")["data"]}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run(
        up,
        *("curl", "-sS", "--fail-with-body", f"{up.line['neuron_url']}/models/unload"),
        *("-H", "content-type: application/json", "-d", json.dumps({"model_id": str(mine)})),
    )


def test_a_model_that_is_named_at_the_start_answers_under_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine-F16.gguf"
    shutil.copy(spark.gguf_path(), mine)
    with household(str(mine)) as running_up:
        assert running_up.line["model"] == "mine-F16"
        asked = {"model": "mine-F16", "messages": [{"role": "user", "content": "Hi"}]}
        answer = run(
            running_up,
            *("curl", "-sS", "--fail-with-body", f"{running_up.line['url']}/v1/chat/completions"),
            *("-H", "content-type: application/json", "-d", json.dumps(asked)),
        )
        assert json.loads(answer)["choices"][0]["message"]["content"]


def test_a_question_on_the_command_line_is_answered(up: Up) -> None:
    helexa = (sys.executable, "-m", "helexa.cli", "ask", "--endpoint", str(up.line["url"]))
    assert run(up, *helexa, "What is the capital of France?") == "The capital of France is Paris.\n"
    told = json.loads(run(up, *helexa, "Count to ten.", "--json", "--max-tokens", "3"))
    assert (told["model"], told["finish_reason"]) == ("helexa/spark", "length")
    assert told["usage"]["completion_tokens"] == 3


def test_a_streamed_curl_ends_with_its_terminator(up: Up) -> None:
    shown = run(up, "sh", str(ROOT / "examples" / "curl" / "stream.sh"))
    events = [line for line in shown.splitlines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["usage"]["completion_tokens"] > 0


def test_status_lists_the_model_on_its_node(up: Up) -> None:
    shown = run(up, sys.executable, "-m", "helexa.cli", "status", "--endpoint", up.line["url"])
    assert "helexa/spark" in shown
    assert "local (loaded)" in shown


def descendants(pid: int) -> set[int]:
    """Processes below ``pid``, by their parents' ids."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found: set[int] = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if running(pid)}


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left_behind(how: signal.Signals) -> None:
    # Who is killed leaves a folder; its name has to be short, for there are sockets in it.
    with TemporaryDirectory(prefix="up-") as scratch, household(TMPDIR=scratch) as running_up:
        below = descendants(running_up.process.pid)
        assert len(below) >= 3  # gateway, node, engine
        running_up.process.send_signal(how)
        running_up.process.wait(timeout=60)
        deadline = time.monotonic() + 60
        while alive(below) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(below)
