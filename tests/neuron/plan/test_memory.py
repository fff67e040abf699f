"""The prediction: its terms, and that a real engine process agrees with it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from helexa.neuron.engines.llamacpp.config import ServerConfig
from helexa.neuron.hardware.readings import resident_mb
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import Shape, write_model
from helexa.neuron.plan import kv_bytes, predict_memory, tokens_in
from helexa.spark import gguf_path


def facts(**changes: object) -> ModelFacts:
    plain = ModelFacts(
        model_id="m", path=Path("m.gguf"), format="gguf", architecture="qwen3",
        parameters=1, weight_bytes=1 << 20, layers=4, kv_layers=4, kv_heads=2, head_dim_k=64,
        head_dim_v=64, context_native=4096, embedding_dim=256, vocab=1000, heads=4,
        feed_forward=512,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def kv(of: ModelFacts, context: int = 1024, slots: int = 2, kv_type: str = "f16",
       *, unified: bool = True) -> int:  # fmt: skip
    return kv_bytes(of, context=context, slots=slots, kv_type=kv_type, unified=unified, batch=512)


def test_the_prompt_cache_holds_as_many_tokens_as_their_keys_and_values_fit() -> None:
    per_token = 4 * 2 * (64 + 64) * 2  # layers × heads × (key + value) × bytes of f16
    assert tokens_in(facts(), 10, "f16") == (10 << 20) // per_token
    assert tokens_in(facts(), 10, "q8_0") > tokens_in(facts(), 10, "f16")
    assert tokens_in(facts(), 0, "f16") == 0


def test_a_pool_is_shared_and_slots_are_not() -> None:
    per_token = 4 * 2 * (64 + 64) * 2
    assert kv(facts()) == 1024 * per_token
    assert kv(facts(), unified=False) == 2 * 1024 * per_token
    assert kv(facts(), slots=8) == kv(facts(), slots=1)


def test_a_smaller_kv_type_is_smaller_by_its_blocks() -> None:
    assert kv(facts(), kv_type="q8_0") == kv(facts()) * 34 // 64
    assert kv(facts(), kv_type="q4_0") == kv(facts()) * 18 // 64


def test_windowed_layers_stop_growing() -> None:
    windowed = facts(kv_layers=0, windowed_layers=4, sliding_window=256, window_elements=1024)
    assert kv(windowed, 8192) == kv(windowed, 32_768) == 1024 * 2 * (2 * 256 + 512)


def test_states_cost_per_slot_and_not_per_token() -> None:
    state = facts(kv_layers=0, state_bytes=1000)
    assert kv(state, 1024, 3) == kv(state, 65_536, 3) == 3000


def test_weights_and_process_are_always_there() -> None:
    estimate = predict_memory(facts(), context=256, slots=1, kv_type="f16", unified=True, batch=32)
    assert estimate.weights_mb == 1
    assert estimate.process_mb >= 30
    assert estimate.total_mb == estimate.weights_mb + estimate.kv_mb + estimate.compute_mb


def test_a_chunks_activations_are_of_feed_forward_or_attention_whichever_is_wider() -> None:
    def compute_mb(context: int = 4096, **changes: object) -> int:
        return predict_memory(
            facts(**changes), context=context, slots=1, kv_type="f16", unified=True, batch=8192
        ).compute_mb

    feed_forward, attention = 5 * 256 + 3 * 512, 3 * 64 * 64 + 2 * 8 * 64 + 256
    wider = 8192 * 4 * (attention - feed_forward) / 2**20
    assert compute_mb(heads=64, kv_heads=8) - compute_mb() == pytest.approx(wider, abs=1)
    mask = 8192 * 2 * (65_536 - 4096) / 2**20
    assert compute_mb(65_536) - compute_mb() == pytest.approx(mask, abs=1)


@contextmanager
def engine(config: ServerConfig) -> Iterator[tuple[int, int]]:
    """A real engine process; its pid and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helexa.neuron.engines.llamacpp.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it ends its whole group with the pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(config) + b"\n")
        process.stdin.flush()
        yield process.pid, json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def fill(port: int, key: str, tokens: int) -> None:
    """One prompt of ``tokens`` tokens, so that what is reserved for a chunk is used."""
    body = json.dumps({"prompt": [5] * tokens, "max_tokens": 1}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


MIDDLE = Shape(layers=3, embedding=512, heads=8, kv_heads=4, head_dim=64, feed_forward=1536,
               vocab=32_000, context=16_384, quant="F16")  # fmt: skip


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "middle.gguf", MIDDLE)


@pytest.mark.parametrize(("context", "slots", "kv_type"), [
    (512, 1, "f16"), (1024, 2, "f16"), (512, 8, "f16"), (4096, 1, "q8_0"),
])  # fmt: skip
@pytest.mark.parametrize("which", ["middle", "spark"])
def test_predicted_memory_is_within_a_tenth_of_measured(
    middle: Path, which: str, context: int, slots: int, kv_type: str
) -> None:
    path = middle if which == "middle" else gguf_path()
    config = ServerConfig(
        path=str(path), alias="m", api_key="key", cells=context * slots, slots=slots,
        kv_type=kv_type, prefill_batch=512, threads=1,
    )  # fmt: skip
    with engine(config) as (pid, port):
        fill(port, "key", min(context - 8, 520))
        measured = resident_mb(pid)
    predicted = predict_memory(
        inspect(path, "m"), context=context * slots, slots=slots, kv_type=kv_type, unified=True,
        batch=512,
    ).total_mb  # fmt: skip
    assert predicted == pytest.approx(measured, rel=0.1)
