"""An engine's log: kept, bounded, and read for the reason of a failure."""

from __future__ import annotations

import os
from pathlib import Path

from helexa.neuron.engines.logs import EngineLog, trouble


def test_the_tail_begins_with_the_present_life(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "logs" / "m.log")
    for text in (b"first life\n", b"second life\n"):
        fd = log.open()
        os.write(fd, text)
        os.close(fd)
    assert log.tail() == "second life\n"


def test_a_chatty_engine_fills_no_disk(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "m.log", max_bytes=10_000)
    fd = log.open()
    for index in range(30):
        os.write(fd, f"{index:03d}".encode() * 500)
        log.bound()
    os.write(fd, b"the end\n")
    os.close(fd)
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert kept <= 10_000 * 2 + 1_500
    assert log.tail().endswith("the end\n")


def test_an_engine_that_dies_again_and_again_fills_no_disk(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "m.log", max_bytes=1_000)
    for _ in range(30):
        fd = log.open()
        os.write(fd, b"it broke\n" * 50)
        os.close(fd)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 1_000 + 500
    assert log.tail() == "it broke\n" * 50


def test_trouble_is_the_last_lines_that_speak_of_it() -> None:
    tail = (
        "0.00.1 I srv  load_model: loading\n"
        "0.00.2 E llama_model_load: error loading model: bad magic\n"
        "0.00.2 E llama_model_load: error loading model: bad magic\n"
        "0.00.3 E srv  load_model: failed to load model\n"
        "goodbye\n"
    )
    assert trouble(tail) == (
        "llama_model_load: error loading model: bad magic; load_model: failed to load model"
    )
    assert trouble("all is well\n") == ""
