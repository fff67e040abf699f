"""Models come and go; the daemon stays, and leaves nothing behind when it goes."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from helexa import spark


def test_a_node_without_settings_loads_nothing_until_it_is_asked(start_node: Any, h: Any) -> None:
    node = start_node()
    assert node.get("/models") == []
    assert node.get("/health")["activation"]["state"] == "ready"
    entry = node.load()
    assert (entry["id"], entry["status"], entry["harness"]) == (h.SPARK, "loaded", "llamacpp")
    assert entry["limit"]["context"] == entry["limit"]["input"] + entry["limit"]["output"]
    assert entry["vram_used_mb"] > 0
    assert node.post("/models/unload", {"model_id": h.SPARK}).status_code == 200
    assert node.get("/models") == []
    assert node.post("/v1/chat/completions", h.chat()).status_code == 404
    assert node.engines() == []


def test_two_loads_of_one_model_at_once_are_one_load(start_node: Any, h: Any) -> None:
    node = start_node()
    answers: list[int] = []

    def load() -> None:
        answers.append(node.post("/models/load", {"model_id": h.SPARK}).status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert len(node.engines()) == 1
    assert len(list((node.folder / "state" / "logs").iterdir())) == 1


def test_a_load_that_nobody_waits_for_answers_202_and_goes_on(start_node: Any, h: Any) -> None:
    node = start_node()
    answer = node.post("/models/load?wait=false", {"model_id": h.SPARK})
    assert (answer.status_code, answer.json()["status"]) == (202, "loading")
    h.until(lambda: node.status() == "loaded")


def test_an_unknown_model_is_not_found_and_a_wrong_body_is_refused(start_node: Any, h: Any) -> None:
    node = start_node("default_source = 'file'\n")  # nobody is asked who is not on this machine
    unknown = node.post("/models/load", {"model_id": "no/such"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert node.status("no/such") is None
    wrong = node.post("/models/load", {"model_id": 1})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "model_id")
    unknown_field = node.post("/models/load", {"model_id": "a", "quantum": "x"})
    assert unknown_field.status_code == 400
    assert node.post("/models/unload", {"model_id": "no/such"}).status_code == 404


def test_a_truncated_file_fails_with_the_reason_and_the_daemon_lives(
    start_node: Any, h: Any, tmp_path: Path
) -> None:
    whole = spark.gguf_path().read_bytes()
    header_only, half = tmp_path / "header.gguf", tmp_path / "half.gguf"
    header_only.write_bytes(whole[:100])
    half.write_bytes(whole[: len(whole) // 2])
    node = start_node()
    for path in (header_only, half, tmp_path / "missing.gguf"):
        answer = node.post("/models/load", {"model_id": str(path)})
        assert answer.status_code in (404, 503), answer.text
        assert path.name in answer.json()["error"]["message"]
    listed = {entry["id"]: entry for entry in node.get("/models")}
    assert listed[str(half)]["status"] == "failed"
    assert listed[str(half)]["servable"]["reason"] == "load_failed"
    assert "half.gguf" in listed[str(half)]["servable"]["detail"]
    refused = node.post("/v1/chat/completions", h.chat(model=str(half)))
    assert refused.status_code == 503
    shutil.copy(spark.gguf_path(), half)
    assert node.load(str(half))["status"] == "loaded"
    answer = node.post("/v1/chat/completions", h.chat(model=str(half), max_tokens=1))
    assert answer.status_code == 200


def test_an_unknown_engine_fails_the_load_and_names_those_there_are(
    node: Any, tmp_path: Path
) -> None:
    path = shutil.copy(spark.gguf_path(), tmp_path)
    answer = node.post("/models/load", {"model_id": str(path), "harness": "warp"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "harness")


def test_boot_time_models_are_loaded_in_the_background_and_retried(
    start_node: Any, h: Any, tmp_path: Path
) -> None:
    late = tmp_path / "late.gguf"
    node = start_node(
        f"[[default_models]]\nmodel_id = '{late}'\n[[default_models]]\nmodel_id = '{h.SPARK}'\n"
        "[life]\nretry_secs = [0.05, 0.2]\n"
    )
    h.until(lambda: node.status() == "loaded")
    activation = node.get("/health")["activation"]
    assert activation["completed"] == [h.SPARK]
    assert [failed["model_id"] for failed in activation["failed"]] == [str(late)]
    whole = spark.gguf_path().read_bytes()
    late.write_bytes(whole[:100_000])  # somebody copies it
    h.until(lambda: "truncated" in node.get("/health")["activation"]["failed"][0]["error"], 30)
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "whole").replace(late)
    h.until(lambda: node.get("/health")["activation"]["failed"] == [], 30)
    assert node.status(str(late)) == "loaded"
    h.until(lambda: node.log().count('"status":"loaded"') == 2, 30)  # a thread writes it
    assert "late.gguf was not found" in node.log()


def test_an_idle_model_is_unloaded_after_its_time(start_node: Any, h: Any) -> None:
    node = start_node("[life]\nidle_ttl_secs = 0.3\n")
    node.load()
    h.until(lambda: node.status() is None)
    assert node.engines() == []


def test_sigterm_lets_an_answer_finish_and_leaves_no_process(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(600, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(node.pid, signal.SIGTERM)
        rest = list(lines)
    assert [line for line in rest if line][-1] == "data: [DONE]"
    assert node.stop() == 0
    assert not h.alive(engine)


def test_sigterm_cuts_what_does_not_finish_in_time_and_says_so(start_node: Any, h: Any) -> None:
    node = start_node("[life]\ndrain_secs = 0.2\n")
    node.load()
    with node.client.stream(
        "POST", "/v1/chat/completions", json=h.endless(8000, stream=True)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(node.pid, signal.SIGTERM)
        *_, last = h.events(lines)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["helexa"] == {"finish": "drain"}
    assert node.stop() == 0


def test_a_draining_node_refuses_new_work_and_can_be_called_back(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    assert node.get("/health")["draining"] is False
    assert node.post("/drain").json()["draining"] is True
    assert node.get("/health")["draining"] is True
    refused = node.post("/v1/chat/completions", h.chat())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert node.post("/models/load", {"model_id": "x/y"}).status_code == 503
    node.post("/drain", {"draining": False})
    assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200


def test_a_killed_node_leaves_no_engine_behind(start_node: Any, h: Any) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    node.stop(signal.SIGKILL)
    h.until(lambda: not h.alive(engine))


def test_a_stopped_engine_of_a_killed_node_is_ended_at_the_latest_by_the_next_one(
    start_node: Any, h: Any
) -> None:
    node = start_node()
    node.load()
    (engine,) = node.engines()
    os.kill(engine, signal.SIGSTOP)
    node.stop(signal.SIGKILL)
    start_node(folder=node.folder)
    h.until(lambda: not h.alive(engine))


def test_the_node_stays_small(start_node: Any) -> None:
    node = start_node()
    node.load()
    assert node.rss_kb() < 90 * 1024


def test_a_node_that_is_to_read_its_settings_again_says_that_it_does_not_and_goes_on(
    node: Any, h: Any
) -> None:
    os.kill(node.pid, signal.SIGHUP)
    h.until(lambda: "a node reads its settings at its start only" in node.log())
    assert node.get("/health")


@pytest.mark.parametrize(
    ("path", "always"),
    [
        ("/discovery", "hostname os kernel devices harnesses"),
        ("/version", "package_version git_sha git_dirty python_version engines"),
        ("/health", "uptime_secs devices activation models"),
    ],
)
def test_what_the_node_is_can_be_read(node: Any, path: str, always: str) -> None:
    answer = node.client.get(path)
    assert answer.status_code == 200
    assert set(always.split()) <= answer.json().keys()
