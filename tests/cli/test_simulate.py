"""``helexa simulate`` prints what would happen, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from helexa.cli.simulate import simulate_command


def test_a_generated_trace_is_replayed_under_every_policy(tmp_path: Path) -> None:
    run = CliRunner()
    made = run.invoke(simulate_command, ["--generate", "40", "--seconds", "2"])
    assert made.exit_code == 0
    trace = tmp_path / "trace.jsonl"
    trace.write_text(made.output)
    shown = run.invoke(simulate_command, [str(trace), "--policy", "all", "--warm-up", "15"])
    assert shown.exit_code == 0, shown.output
    for word in ("routed", "oracle", "round-robin", "random", "first_p90", "evictions", "hits"):
        assert word in shown.output
    found = json.loads(run.invoke(simulate_command, [str(trace), "--json"]).output)
    assert found["routed"]["requests"] == len(made.output.splitlines())
    assert found["routed"]["refused"] == 0


def test_a_trace_may_come_on_standard_input_with_a_fleet_of_ones_own(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[nodes]]\ncount = 2\n[[models]]\nid = "m"\nload_s = 5.0\n')
    trace = '{"at": 0.5, "model": "m", "prompt": [["p", 100]], "output": 10}\n'
    command = ["-", "--fleet", str(fleet), "--json"]
    got = CliRunner().invoke(simulate_command, command, input=trace)
    found = json.loads(got.output)["routed"]
    assert (found["loads"], found["cold"], found["first_p50"]) == (1, 1, 5.01)


def test_a_model_that_the_fleet_does_not_have_is_named_and_has_no_times(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[nodes]]\n[[models]]\nid = "org/a"\n')
    got = CliRunner().invoke(
        simulate_command, ["-", "--fleet", str(fleet)], input='{"at": 0.5, "model": "org/b"}\n'
    )
    assert got.exit_code == 0
    assert got.stderr == "refused: the fleet has no org/b; it has org/a\n"
    assert "0.000 s" not in got.stdout
    assert "–" in got.stdout


def test_what_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\nnonsense\n")
    for arguments in ([], [str(bad)], [str(tmp_path / "missing")], ["--generate", "0"]):
        got = CliRunner().invoke(simulate_command, arguments)
        assert got.exit_code == 2
    assert "line 1" in CliRunner().invoke(simulate_command, [str(bad)]).output
