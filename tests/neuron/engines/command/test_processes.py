"""Commands as processes: what they print, how they fail, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.candidates import as_gguf
from tests.neuron.engines.driving import QUICK, Case, user
from tests.neuron.engines.driving import running as running_within

from helexa.core.errors import ServiceUnavailable
from helexa.neuron.engines.command.engine import CommandEngine
from helexa.neuron.engines.supervisor import SupervisorSettings
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.settings import CommandSettings

pytestmark = pytest.mark.anyio

SERVER = """
import http.server, json, os, pathlib, subprocess, sys
port, key_file, env_file, health = int(sys.argv[1]), *sys.argv[2:5]
key = pathlib.Path(key_file).read_text().strip()
assert pathlib.Path(env_file).read_text() == "MY_KEY=" + key + "\\n"
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("hello from the server", helper.pid, os.environ["GREETING"], flush=True)
print("and its errors", file=sys.stderr, flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Handler.asked += 1
        self.answer(200 if self.path == health and Handler.asked > 2 else 503, {})

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        right = self.headers["authorization"] == "Bearer " + key
        self.answer(*((200, {"choices": [{}]}) if right else (401, {"error": "no"})))

    def answer(self, status, body):
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


PATIENT = msgspec.structs.replace(QUICK, start_deadline_s=50)


def running(
    engine: CommandEngine,
    facts: ModelFacts,
    folder: Path,
    wanted: dict[str, object],
    settings: SupervisorSettings = PATIENT,
) -> AbstractAsyncContextManager[Case]:
    return running_within(engine, facts, folder, wanted, settings)


def made(command: list[str], **given: Any) -> CommandEngine:
    section = msgspec.convert({"command": command, **given}, CommandSettings)
    return CommandEngine("mine", section, os.environ)


def served_by(code: str, *arguments: str, **given: Any) -> CommandEngine:
    return made([sys.executable, "-c", code, "{port}", *arguments], **given)


def a_server(**given: Any) -> CommandEngine:
    places = ("{key_file}", "{env_file}", given.get("health", "/health"))
    return served_by(SERVER, *places, key_name="MY_KEY", env={"GREETING": "{served_id}"}, **given)


def group(pid: int) -> set[int]:
    """The processes of a group."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if fields[2] == str(pid) and fields[0] != "Z":
            found.add(int(entry.name))
    return found


async def until(met: Any) -> None:
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.02)


async def refusal(engine: CommandEngine, folder: Path, deadline_s: float = 50) -> str:
    """Why it did not start."""
    settings = msgspec.structs.replace(QUICK, start_deadline_s=deadline_s)
    with pytest.raises(ServiceUnavailable) as caught:
        async with running(engine, as_gguf(), folder, {}, settings):
            pass
    return caught.value.message


async def test_health_is_polled_and_one_token_asked_for_with_the_key(tmp_path: Path) -> None:
    async with running(a_server(health="/alive"), as_gguf(), tmp_path, {}) as case:
        assert case.process.state == "ready"


async def test_what_the_server_prints_is_in_the_engines_log(tmp_path: Path) -> None:
    async with running(a_server(), as_gguf(), tmp_path, {}) as case:
        log = case.process.log.tail()
        assert "hello from the server" in log
        assert case.facts.model_id in log  # from a place in its environment
        assert "and its errors" in log


async def test_a_stop_ends_every_process_that_the_server_has_started(tmp_path: Path) -> None:
    async with running(a_server(), as_gguf(), tmp_path, {}) as case:
        leader = case.process.pid
        assert leader is not None
        members = group(leader)
        assert len(members) == 3  # who owns it, the server, its helper
        await case.process.stop()
        await until(lambda: not group(leader))


async def test_a_server_whose_owner_is_killed_does_not_live_on(tmp_path: Path) -> None:
    async with running(a_server(), as_gguf(), tmp_path, {}) as case:
        leader = case.process.pid
        assert leader is not None
        os.kill(leader, 9)
        await case.reaches("ready", 2)
        await until(lambda: not group(leader))


async def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    async with running(a_server(), as_gguf(), tmp_path, {}) as case:
        before = case.address
        server = min(group(case.process.pid or 0) - {case.process.pid})
        os.kill(server, 9)
        await case.reaches("ready", 2)
        died = next(change for change in case.changes if change.state == "recovering")
        assert "SIGKILL" in (died.reason or "")
        assert case.address.api_key != before.api_key


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = await refusal(made(["no-such-program", "{port}"]), tmp_path)
    assert "the command 'no-such-program' cannot be started" in said


async def test_a_server_that_gives_up_says_why_in_its_own_words(tmp_path: Path) -> None:
    said = await refusal(served_by("raise SystemExit('ValueError: no such model')"), tmp_path)
    assert "exited with status 1" in said
    assert "no such model" in said


async def test_a_server_that_never_gets_healthy_is_given_up(tmp_path: Path) -> None:
    said = await refusal(served_by("import time; time.sleep(600)"), tmp_path, deadline_s=1)
    assert "not ready after 1 s" in said


async def test_a_server_that_is_healthy_and_gives_no_token_fails_the_load(tmp_path: Path) -> None:
    mute = SERVER.replace('{"choices": [{}]}', "{}")
    engine = served_by(mute, "{key_file}", "{env_file}", "/health", key_name="MY_KEY",
                       env={"GREETING": "hi"})  # fmt: skip
    assert "its first answer holds nothing" in await refusal(engine, tmp_path)
    other = SERVER.replace("return", "").replace('"Bearer "', '"Nobody "')
    engine = served_by(other, "{key_file}", "{env_file}", "/health", key_name="MY_KEY",
                       env={"GREETING": "hi"})  # fmt: skip
    assert "loaded but gave no token" in await refusal(engine, tmp_path)


async def test_what_is_running_is_asked_like_any_engine(tmp_path: Path) -> None:
    async with running(a_server(), as_gguf(), tmp_path, {}) as case:
        assert isinstance(case, Case)
        request = case.clean("chat", user("hi"))
        assert request.path == "/v1/chat/completions"
        assert (await case.engine.load(case.address)).running == 0


SLOW_TO_GO = """
import pathlib, signal, sys, time
def leave(*_):
    time.sleep(0.3)
    pathlib.Path(sys.argv[2]).write_text("in order")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
""" + SERVER.replace("sys.argv[2:5]", "sys.argv[3:6]")


async def test_a_server_has_time_to_leave_in_order(tmp_path: Path) -> None:
    note = tmp_path / "note"
    places = (str(note), "{key_file}", "{env_file}", "/health")
    engine = served_by(SLOW_TO_GO, *places, key_name="MY_KEY", env={"GREETING": "hi"})
    async with running(engine, as_gguf(), tmp_path, {}) as case:
        await case.process.stop(grace_s=30)
    assert note.read_text() == "in order"


@pytest.mark.parametrize("end", ["the neuron is gone", "its owner is killed"])
async def test_nothing_outlives_a_neuron_that_is_gone(end: str) -> None:
    config = {
        "command": [sys.executable, "-c", "import time; time.sleep(600)", "{port}"],
        "values": {},
        "env": {},
        "api_key": "secret",
    }
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "helexa.neuron.engines.command.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(msgspec.json.encode(config) + b"\n")
    async with asyncio.timeout(30):
        assert b'"port"' in await owner.stdout.readline()
    assert len(group(owner.pid)) == 2
    if end == "the neuron is gone":
        owner.stdin.close()
    else:
        owner.kill()
    await until(lambda: not group(owner.pid))
    await owner.wait()
