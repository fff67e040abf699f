from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.bench.made import json_answer, run, serving_in_thread
from tests.bench.test_sweep import Node

from helexa.bench.scenarios.build import scenarios
from helexa.bench.settings import load_settings
from helexa.bench.store.store import Store
from helexa.bench.sweep.alone import alone

CONFIG = """
[bench]
samples_per_version = 2
iteration_pause_secs = 0
db_path = "{db}"
[scenarios]
prompt_sizes = [8]
max_tokens = 4
[[targets]]
name = "node"
kind = "neuron"
endpoint = "{url}"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    """Run ``helexa bench``; the settings point at a scripted node."""
    with serving_in_thread(Node()) as url:
        config = tmp_path / "helexa-bench.toml"
        config.write_text(CONFIG.format(db=tmp_path / "bench.sqlite", url=url))

        def call(*args: str, named: bool = True) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "helexa.cli", "bench", *args]
            if named:
                command += ["--config", str(config)]
            return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

        call.config = config  # type: ignore[attr-defined]
        call.url = url  # type: ignore[attr-defined]
        yield call


def seed(path: Path, factor: float) -> None:
    store = Store(path)
    for build, by in (("b1", 1.0), ("b2", factor)):
        at = 1.0 if build == "b1" else 100.0
        store.add_many(run(at + i, build=build, first=100 * by + i, rate=50 / by) for i in range(5))
    store.close()


def test_once_measures_what_is_due_and_shows_each_run(bench: Any) -> None:
    done = bench("once", "--json")
    assert done.returncode == 0, done.stderr
    outcome = {"stored": 2, "failed": 0, "put_off": 0, "down": {}, "missing": {}}
    assert json.loads(done.stdout) == outcome
    assert "[2/2] node  m  chat:8 #2  first token" in done.stderr
    again = bench("once")
    assert "nothing is due" in again.stderr
    report = bench("report")
    assert "| m | chat:8 |" in report.stdout
    assert "There is no build before this one" in report.stdout
    assert "secret-host" not in report.stdout
    for shape in ("json", "html"):
        assert "chat:8" in bench("report", "--format", shape).stdout


def test_two_sweeps_into_one_store_do_not_measure_each_other(bench: Any) -> None:
    with alone(bench.config.parent / "bench.sqlite"):
        refused = bench("once")
        assert (refused.returncode, "another sweep is under way" in refused.stderr) == (3, True)
    assert bench("once").returncode == 0


@pytest.mark.parametrize(("factor", "status"), [(1.3, 1), (1.0, 0)])
def test_compare_leaves_with_1_on_a_regression(bench: Any, factor: float, status: int) -> None:
    seed(bench.config.parent / "bench.sqlite", factor)
    done = bench("compare", "b1", "b2")
    assert done.returncode == status, done.stdout + done.stderr
    assert ("slower" in done.stdout) == bool(status)


def test_compare_leaves_with_1_on_a_scenario_that_does_not_work_any_more(bench: Any) -> None:
    store = Store(bench.config.parent / "bench.sqlite")
    store.add_many(run(1.0 + i, build="b1") for i in range(5))
    store.add(run(9.0, build="b2", first=None, rate=None, ok=False, error="no tool call"))
    store.close()
    done = bench("compare", "b1", "b2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "every run fails with b2; it worked with b1" in done.stdout
    assert "every run fails with b2" in bench("report").stdout


def test_a_report_says_which_cells_the_newest_build_has_not_reached(bench: Any) -> None:
    store = Store(bench.config.parent / "bench.sqlite")
    store.add_many(run(1.0, build="b1", scenario=name) for name in ("chat:8", "tools"))
    store.add(run(2.0, build="b2"))
    store.add(run(2.0, build="b2", scenario="chat:8"))
    store.close()
    said = bench("report").stdout
    assert "not all measured with the newest build: `b2`, `b1`" in said
    assert "| m | chat:8 | b2 |" in said
    assert "| m | tools | b1 |" in said


def test_compare_without_a_common_cell_says_so(bench: Any) -> None:
    seed(bench.config.parent / "bench.sqlite", 1.0)
    done = bench("compare", "b1", "nothing")
    assert (done.returncode, "no cell in common" in done.stderr) == (2, True)


def test_scores_are_given_by_hand(bench: Any) -> None:
    path = bench.config.parent / "bench.sqlite"
    store = Store(path)
    store.add(run(1.0, scenario="capability:rhyme", artifact="Roses are red"))
    store.close()
    assert "Roses are red" in bench("score").stdout
    assert bench("score", "1", "0.5").returncode == 0
    assert "Roses" not in bench("score").stdout
    store = Store(path)
    store.add(run(2.0, scenario="chat:128"))
    store.close()
    for no_answer in ("2", "99"):
        refused = bench("score", no_answer, "1")
        assert (refused.returncode, "not the answer of a probe" in refused.stderr) == (2, True)
    for score in ("inf", "nan"):
        assert bench("score", "1", score).returncode == 2
    assert bench("score", "9" * 30, "1").returncode == 2


def test_runs_are_exported(bench: Any, tmp_path: Path) -> None:
    seed(bench.config.parent / "bench.sqlite", 1.0)
    assert bench("export", "-").stdout.count("\n") == 11
    assert "10 runs written" in bench("export", str(tmp_path / "x.csv")).stdout
    assert bench("export", str(tmp_path / "x.doc")).returncode == 2
    nowhere = bench("export", str(tmp_path / "no" / "x.csv"))
    assert (nowhere.returncode, "cannot be written: No such" in nowhere.stderr) == (2, True)


def test_old_builds_are_thinned_out(bench: Any) -> None:
    seed(bench.config.parent / "bench.sqlite", 1.3)
    done = bench("thin", "--keep", "1", "--compact")
    assert (done.returncode, "5 runs deleted" in done.stdout) == (0, True), done.stderr
    assert bench("export", "-").stdout.count("\n") == 6
    assert "slower" in bench("report").stdout


def test_swap_cost_prints_what_loading_costs(bench: Any) -> None:
    store = Store(bench.config.parent / "bench.sqlite")
    store.add(run(1.0, scenario="cold", load_ms=9000.0))
    store.close()
    assert "beast  m  cold: 9.00 s to load" in bench("swap-cost").stdout


def test_probe_measures_any_endpoint_without_settings(bench: Any) -> None:
    done = bench("probe", bench.url, "--model", "m", "--max-tokens", "4", named=False)
    assert done.returncode == 0, done.stderr
    assert "first token" in done.stdout
    several = bench(
        "probe", bench.url, "--model", "m", "--max-tokens", "4", "--streams", "3", named=False
    )
    assert "tokens/s of all 3 streams" in several.stdout
    gone = bench("probe", "http://127.0.0.1:1", named=False)
    assert (gone.returncode, "nothing listens" in gone.stderr) == (3, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("prompt_sizes = [8]", 'prompt_sizes = [8]\nnames = ["colt"]'), "did you mean 'cold'"),
        (("max_tokens", "max_token"), "unknown key `scenarios.max_token`"),
        (('kind = "neuron"', 'kind = "nvidia"'), "kind"),
        (("[[targets]]", "[[target]]"), "unknown key `target`"),
        (('name = "node"', 'name = "node"\napi_key_env = "NO_SUCH_KEY"'), "NO_SUCH_KEY"),
    ],
)
def test_a_wrong_setting_is_one_message_and_status_2(
    bench: Any, change: tuple[str, str], words: str
) -> None:
    bench.config.write_text(bench.config.read_text().replace(*change))
    done = bench("once")
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("table", ["capability_probes", "scenarios.capability_probes"])
def test_probes_of_capability_are_scenarios(tmp_path: Path, table: str) -> None:
    file = tmp_path / "helexa-bench.toml"
    file.write_text(f'[[{table}]]\nname = "rhyme"\nprompt = "Write a rhyme."\n')
    settings = load_settings(file, {}, {}).value.scenarios
    assert [scenario.name for scenario in scenarios(settings)][-1] == "capability:rhyme"


def test_a_missing_database_is_one_message(bench: Any) -> None:
    done = bench("report")
    assert (done.returncode, "helexa bench once" in done.stderr) == (2, True)


def test_run_sweeps_and_serves_until_sigterm(bench: Any) -> None:
    command = [sys.executable, "-m", "helexa.cli", "bench", "run", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--config", str(bench.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BENCH_BENCH__SWEEP_INTERVAL_SECS": "0.1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert (ready["ready"], ready["role"]) == (True, "bench")
        while "chat:8 #2" not in process.stderr.readline():
            pass
        with urllib.request.urlopen(f"{ready['url']}/api/summary", timeout=90) as answer:
            assert json.loads(answer.read())[0]["scenario"] == "chat:8"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no prlimit")
def test_a_disk_that_is_full_costs_runs_their_storing_and_the_pages_nothing(bench: Any) -> None:
    command = [sys.executable, "-m", "helexa.cli", "bench", "run", "--port", "0"]
    changes = {"BENCH_BENCH__SWEEP_INTERVAL_SECS": "0.1",
               "BENCH_BENCH__SAMPLES_PER_VERSION": "100000"}  # fmt: skip
    process = subprocess.Popen(
        [*command, "--config", str(bench.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | changes,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def until_said(words: str) -> None:
        for line in process.stderr or ():
            if words in line:
                return
        raise AssertionError(f"it has ended without {words!r}")

    try:
        url = json.loads(process.stdout.readline())["url"]
        until_said("chat:8 #2")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, no_limit[1]))
        until_said("what is stored stays, and the next try is in 0.1 s")
        with urllib.request.urlopen(f"{url}/api/summary", timeout=90) as answer:
            assert json.loads(answer.read())[0]["scenario"] == "chat:8"
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, no_limit)
        until_said("runs due")
        until_said("chat:8 #")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", [("report",), ("export", "-")])
def test_what_is_stored_can_be_read_from_a_disk_without_room(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    seed(tmp_path / "bench.sqlite", 1.0)
    command = [sys.executable, "-B", "-m", "helexa.cli", "bench", *words]
    no_room = (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    done = subprocess.run(
        [*command, "--db", str(tmp_path / "bench.sqlite")],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, no_room),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "chat:128" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_report_for_which_there_is_no_room_is_one_message(tmp_path: Path) -> None:
    seed(tmp_path / "bench.sqlite", 1.0)
    command = [sys.executable, "-m", "helexa.cli", "bench", "report", "--format", "html"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--db", str(tmp_path / "bench.sqlite")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "helexa: what was to be written did not fit: No space left on device; free some space "
        "and run it again\n"
    )


def test_a_target_that_is_down_is_exit_status_1(bench: Any) -> None:
    text = bench.config.read_text()
    gone = '[[targets]]\nname = "gone"\nkind = "openai"\nendpoint = "http://127.0.0.1:1"\n'
    bench.config.write_text(text + gone)
    done = bench("once", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["stored"] == 2
    assert list(json.loads(done.stdout)["down"]) == ["gone"]


def test_an_endpoint_that_is_no_neuron_is_said_to_be_none(bench: Any) -> None:
    async def page(_body: dict[str, Any], write: Any) -> None:
        await write(json_answer(["hello"]))

    with serving_in_thread(page) as url:
        bench.config.write_text(bench.config.read_text().replace(bench.url, url))
        done = bench("once", "--json")
    assert done.returncode == 1
    assert "is no neuron's" in json.loads(done.stdout)["down"]["node"]


def test_an_address_or_a_key_that_cannot_be_used_is_named(bench: Any) -> None:
    for args, words in (
        (("http://x:99999",), "'http://x:99999': Port out of range"),
        ((bench.url, "--key", "ключ"), "the key has characters"),
    ):
        done = bench("probe", *args, named=False)
        assert done.returncode in (2, 3)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
