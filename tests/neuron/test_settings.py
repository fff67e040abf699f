"""neuron.toml: every key of the contract is known, every other one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.core.settings import Secret, SettingsError, load
from helexa.neuron.settings import (
    PREFIX,
    RESERVED,
    NeuronSettings,
    bind_host,
    clamps,
    state_dir,
)

EVERY_KEY = """
port = 0
default_source = "hf"
[[default_models]]
model_id = "helexa/spark"
quant = "f16"
source = "builtin"
harness = "llamacpp"
tensor_parallel = 1
devices = [0]
[engines.llamacpp]
slots = 4
ctx = 8192
gpu_layers = 99
kv_type = "q8_0"
threads = 2
embeddings = true
extra = { n_ubatch = 256 }
[engines.vllm]
args = ["--enforce-eager"]
[engines.command.mine]
command = ["server", "--port", "{port}"]
health = "/healthz"
models = ["a/b"]
[sources.hf]
endpoint = "https://example.org"
auth_env = "HF_TOKEN"
cache_dir = "/tmp/cache"
[fleet]
secret = "s3"
[prefix_cache]
budget_mb = 64
[admission]
max_in_flight = 2
max_queue_depth = 8
max_wait_secs = 30
max_per_principal = 0
reserve_seats = 1
[context_limit]
enabled = true
target_prefill_latency_secs = 120
bootstrap_prefill_tok_per_sec = 800
activation_headroom_mb = 2048
min_free_floor_mb = 1500
output_reserve_tokens = 8192
"""


def read(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> NeuronSettings:
    file = tmp_path / "neuron.toml"
    file.write_text(text)
    return load(
        NeuronSettings,
        prefix=PREFIX,
        path=file,
        default_path=file,
        flags={},
        environ=environ or {},
        reserved=RESERVED,
    ).value


def test_every_key_of_the_contract_is_accepted(tmp_path: Path) -> None:
    settings = read(EVERY_KEY, tmp_path)
    assert settings.default_models[0].quant == "f16"
    assert settings.engines.llamacpp.extra.given() == {"batch": 256}
    assert settings.engines.command["mine"].models == ["a/b"]
    assert settings.context_limit.output_reserve_tokens == 8192


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("prot = 1", "prot"),
        ("[admission]\nmax_wait = 3", "admission.max_wait"),
        ("[engines.llamacpp]\nslot = 3", "engines.llamacpp.slot"),
        ("[engines.llamacpp]\nextra = {n_ctx = 3}", "engines.llamacpp.extra.n_ctx"),
        ("[engines.llamacpp]\nextra = {poll = 'x'}", "engines.llamacpp.extra.poll"),
        ('[[default_models]]\nmodel = "a"', "default_models"),
        ("port = 70000", "port"),
        ('port = "x"', "port"),
        ("[engines.llamacpp]\nslots = 0", "engines.llamacpp.slots"),
        ('[engines.llamacpp]\nkv_type = "q5"', "engines.llamacpp.kv_type"),
        ("[admission]\nmax_queue_depth = -1", "admission.max_queue_depth"),
        ("[context_limit]\ntarget_prefill_latency_secs = 0", "target_prefill_latency_secs"),
        ("[context_limit]\noutput_reserve_tokens = 0", "context_limit.output_reserve_tokens"),
        ("[life]\nload_secs = inf", "life.load_secs"),
        ('[[default_models]]\nmodel_id = "a"\ntensor_parallel = 0', "tensor_parallel"),
    ],
)
def test_what_is_unknown_or_of_the_wrong_type_is_refused_by_its_path(
    text: str, where: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=where):
        read(text, tmp_path)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = read("port = 1", tmp_path, {"NEURON_PORT": "2", "NEURON_LIFE__DRAIN_SECS": "1.5"})
    assert (settings.port, settings.life.drain_secs) == (2, 1.5)


def test_a_secret_never_shows_itself(tmp_path: Path) -> None:
    assert "s3" not in repr(read(EVERY_KEY, tmp_path))


def test_without_a_secret_the_node_stays_on_loopback_whatever_the_file_says() -> None:
    assert bind_host(NeuronSettings(host="0.0.0.0"), None) == "127.0.0.1"
    assert bind_host(NeuronSettings(), Secret("x")) == "0.0.0.0"
    assert bind_host(NeuronSettings(host="10.0.0.1"), Secret("x")) == "10.0.0.1"


def test_clamps_are_whole_numbers_or_a_clear_refusal() -> None:
    assert clamps({}).max_prompt_tokens is None
    assert clamps({"NEURON_MAX_PROMPT_TOKENS": "100"}).max_prompt_tokens == 100
    assert clamps({"NEURON_MIN_FREE_VRAM_MB": "7"}).min_free_vram_mb == 7
    with pytest.raises(SettingsError, match="NEURON_MAX_PROMPT_TOKENS"):
        clamps({"NEURON_MAX_PROMPT_TOKENS": "many"})


def test_the_state_directory_is_the_setting_then_systemds_then_the_users(tmp_path: Path) -> None:
    assert state_dir(NeuronSettings(state_dir=tmp_path), {"STATE_DIRECTORY": "/x"}) == tmp_path
    assert state_dir(NeuronSettings(), {"STATE_DIRECTORY": "/x:/y"}) == Path("/x")
    assert state_dir(NeuronSettings(), {"XDG_STATE_HOME": "/s"}) == Path("/s/helexa/neuron")
