from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from typing import Any, cast

import pytest

from helexa.cli import run as start
from helexa.cli.app import COMMANDS

HEAVY = [
    "asyncio",
    "uvloop",
    "httptools",
    "msgspec",
    "starlette",
    "structlog",
    "rich",
    "prometheus_client",
    "xllamacpp",
    "pynvml",
    "http.client",
    "ssl",
    "helexa.core",
    "helexa.cortex",
    "helexa.neuron",
    "helexa.relay",
    "helexa.wire",
]
PROGRAM = """
import sys
sys.argv = ["helexa", *sys.argv[1:]]
from helexa.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_that_serves(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: helexa")
    assert set(done.stderr.split()).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("typed", "meant"), [(["stats"], "status"), (["fleet", "stats"], "status"), (["doc"], "doctor")]
)
def test_an_unknown_command_is_told_the_one_that_was_probably_meant(
    typed: list[str], meant: str
) -> None:
    done = run(*typed)
    assert done.returncode == 2
    assert f"No such command {typed[-1]!r}. Did you mean '{meant}'?" in done.stderr


def cpu(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_more_than_importing_click() -> None:
    click = min(cpu("-c", "import click") for _ in range(5))
    shown = min(cpu("-m", "helexa.cli", "cortex", "--help") for _ in range(5))
    assert shown < 2.5 * click


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str) -> None:
    done = run(name, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("helexa 0.")


def test_the_table_says_what_each_command_says_of_itself() -> None:
    from click import Context

    from helexa.cli.app import helexa

    for name, (_, text) in COMMANDS.items():
        command = helexa.get_command(Context(helexa), name)
        assert command is not None
        assert text


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["cortex", "--port", "70000"], ["neuron", "--log-level", "loud"]]
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""


def test_doctor_prints_what_it_found_for_people_and_programs() -> None:
    pytest.importorskip("xllamacpp")
    assert "cpu       " in run("doctor").stdout
    assert json.loads(run("doctor", "--json").stdout)["cpu"]["cores"] >= 1


def test_streams_that_a_parent_has_closed_are_held_open() -> None:
    script = (
        "import os, socket, sys\n"
        "from helexa.cli import hold_streams\n"
        "hold_streams()\n"
        "assert socket.socket().fileno() > 2\n"
        "sys.stdout.write('to nobody')\n"
        "sys.stdout.flush()\n"
        "sys.exit(7)\n"
    )
    shell = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(script)} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", shell], check=False).returncode == 7


@pytest.mark.parametrize(
    ("terminal", "plain"),
    [
        ({"NO_COLOR": ""}, {}),
        ({"NO_COLOR": "1"}, {"color": False}),
        ({"TERM": "dumb"}, {"color": False}),
    ],
    ids=["any", "NO_COLOR", "dumb"],
)
def test_colours_are_left_out_for_who_does_not_want_them(
    terminal: dict[str, str], plain: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(os, "environ", {"TERM": "xterm", **terminal})
    start(cast("Any", lambda **given: told.append(given)), "helexa")
    assert told == [{"prog_name": "helexa", **plain}]
