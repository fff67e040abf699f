"""After any mixture of answers, cancels and cuts everything is back where it was."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_random_cancels_leave_no_seat_no_cell_no_record_and_no_descriptor(
    node: Any, h: Any
) -> None:
    for _ in range(3):
        node.post("/v1/chat/completions", h.chat(max_tokens=1))
    before_fds, before_rss = descriptors(node.pid), node.rss_kb()
    rng = random.Random(7)

    def worker(seed: int) -> None:
        local = random.Random(seed)
        for _ in range(15):
            body = h.endless(local.choice([3, 300, 2000]), stream=local.random() < 0.5)
            sock = h.raw_request(node.url, body)
            sock.settimeout(local.choice([0.001, 0.01, 0.05]))
            try:
                while sock.recv(65536):
                    if local.random() < 0.2:
                        break
            except TimeoutError:
                pass
            sock.close()

    threads = [threading.Thread(target=worker, args=[rng.random()]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    h.until(lambda: node.in_flight() == 0 and node.figures()["queue_depth"] == 0)
    assert node.figures()["kv_used_tokens"] == 0
    assert not [r for r in node.get("/requests") if r["state"] in ("queued", "prefill", "decode")]
    h.until(lambda: descriptors(node.pid) <= before_fds + 2, timeout_s=5)
    assert node.rss_kb() - before_rss < 8192
    started = time.monotonic()
    assert node.post("/v1/chat/completions", h.chat(max_tokens=1)).status_code == 200
    assert time.monotonic() - started < 2


def test_answers_that_fill_their_cells_end_cleanly_and_say_why(start_node: Any, h: Any) -> None:
    node = start_node("[engines.llamacpp]\nslots = 2\nctx = 512\n")
    entry = node.load()
    assert entry["limit"]["context"] == 512
    answers: list[Any] = []

    def ask() -> None:
        body = h.endless(4000)
        body["messages"][0]["content"] = "one two " * 40
        answers.append(node.post("/v1/chat/completions", body).json())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        assert answer["choices"][0]["finish_reason"] == "length", answer
        assert answer["usage"]["total_tokens"] <= 512
        assert answer["helexa"] == {"finish": "kv_exhausted"}
    assert node.figures()["kv_used_tokens"] == 0
    assert node.status() == "loaded"
