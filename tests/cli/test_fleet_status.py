"""``helexa fleet`` for people and for scripts."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from helexa.cli import fleet
from helexa.cli.fleet import fleet_group, lines


def test_a_node_that_does_not_answer_is_shown_with_the_reason() -> None:
    node = {
        "name": "attic",
        "endpoint": "http://attic.lan:13131",
        "state": "unreachable",
        "strikes": 8,
        "error": "The node answered with status 401. The fleet secret differs.",
    }
    assert lines({"nodes": [node]})[:2] == [
        "attic  http://attic.lan:13131  unreachable, 8 polls missed",
        "  ! The node answered with status 401. The fleet secret differs.",
    ]


class _Door:
    """A gateway that has unloaded a model, or not everywhere."""

    def __init__(self, *statuses: str) -> None:
        self._nodes = [{"node": f"n{i}", "status": said} for i, said in enumerate(statuses)]

    def ask(self, *_: Any) -> dict[str, Any]:
        return {"model": "m", "nodes": self._nodes}


@pytest.mark.parametrize("words", [(), ("--json",)])
@pytest.mark.parametrize(
    ("statuses", "exit_status"),
    [(("unloaded", "unloaded"), 0), (("unloaded", "Node n1: it does not answer."), 1)],
)
def test_a_script_learns_that_a_node_still_has_the_model(
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    statuses: tuple[str, ...],
    exit_status: int,
) -> None:
    monkeypatch.setattr(fleet, "open_door", lambda *_: _Door(*statuses))
    done = CliRunner().invoke(fleet_group, ["unload", "m", *words])
    assert done.exit_code == exit_status
    assert statuses[1] in done.output


def test_the_ways_to_a_node_are_said() -> None:
    node = {"name": "n", "endpoint": "http://n", "state": "healthy"}
    assert lines({"nodes": [node]})[0] == "n  http://n  healthy"
    ways = {"socket": "/run/neuron.sock", "multiplexed": True}
    assert lines({"nodes": [node | ways]})[0] == (
        "n  http://n  healthy, over its Unix socket, over one connection"
    )


def test_a_load_that_hangs_is_shown_with_who_waits_behind_it_and_what_cancels_it() -> None:
    work = {"phase": "loading", "model": "big", "for_s": 90.0, "load_s": 20.0}
    node = {"name": "n", "endpoint": "http://n", "state": "reachable", "under_way": work}
    behind = {"model": "big", "node": "n", "for_s": 90.0}
    waits = {"model": "small", "waiters": 2, "position": 1, "behind": behind}
    shown = lines({"nodes": [node], "waiting": [waits]})
    assert "loading big for 90 s, 20 s as a rule (helexa fleet unload big cancels it)" in shown[0]
    assert any("small" in line and "big on n, for 90 s" in line for line in shown)
    usual = node | {"under_way": work | {"for_s": 30.0}}
    assert lines({"nodes": [usual]})[0].endswith("loading big for 30 s")


def test_a_ledger_that_cannot_be_written_says_why_and_for_how_long() -> None:
    away = {"ok": False, "why": "the disk is full", "for_s": 12.3, "unwritten": 7}
    told = "! the ledger cannot be written: the disk is full. It has been so for 12 s, and 7"
    assert lines({"ledger": away})[-1] == f"{told} settled requests wait"
    gone = lines({"ledger": away | {"granting": False}})[-1]
    assert gone == f"{told} settled requests wait; keys with caps are granted nothing"
    full = lines({"ledger": away | {"granting": False, "full": True}})[-1]
    assert full == f"{told} settled requests wait; no more may, so nobody is served"
    assert not any("ledger" in line for line in lines({"ledger": {"ok": True}}))
