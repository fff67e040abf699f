"""cortex.toml: every key of the contract loads, and what cannot be meant is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from helexa.core.principal import Cap, Window
from helexa.core.settings import SettingsError
from helexa.cortex.settings import CortexSettings, load_settings, split_listen

EVERYTHING = """
models_config = "models.toml"
[gateway]
listen = "127.0.0.1:1"
metrics_listen = "[::1]:2"
tls_cert = "/c.pem"
tls_key = "/k.pem"
max_body_mb = 1
commit_ms = 900
drain_secs = 5
[eviction]
strategy = "priority"
defrag_after_cycles = 3
[[neurons]]
name = "one"
endpoint = "http://10.0.0.1:13131"
[[neurons]]
name = "two"
endpoint = "https://two.example"
ca = "/ca.pem"
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-plain"
account_id = "acme"
hard_cap = 1000
window = {kind = "rolling", seconds = 60}
caps = [{tokens = 5, window = {kind = "balance"}}]
admin = true
models = ["m"]
may_load = false
priority = 3
expires = 2030-01-01T00:00:00Z
requests_per_minute = 60
max_concurrent = 2
[[entitlements.keys]]
key_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
account_id = "b"
[[entitlements.keys]]
key_env = "SOME_KEY"
account_id = "c"
key_id = "c-one"
[ledger]
url = "sqlite:///x"
slice_tokens = 256
lease_secs = 30
grant_wait_ms = 100
[timeouts]
connect = 1
first_byte = 2.5
between_bytes = 3
[routing]
retries = 1
[residency]
min_residency_secs = 1
max_wait_secs = 2
idle_ttl_secs = 3
[responses]
store = false
ttl_hours = 1
max_mb = 2
[fleet]
secret = "s3cret"
"""


def load(tmp_path: Path, text: str, **environ: str) -> CortexSettings:
    path = tmp_path / "cortex.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, {}, environ).value


def test_every_key_of_the_contract_loads(tmp_path: Path) -> None:
    settings = load(tmp_path, EVERYTHING)
    assert settings.models_config == tmp_path / "models.toml"
    assert settings.neurons[1].ca == Path("/ca.pem")
    first, second, third = settings.entitlements.keys
    assert first.all_caps == (Cap(1000, Window("rolling", 60)), Cap(5))
    assert (second.name, third.name) == ("b", "c-one")
    assert second.all_caps == ()
    assert settings.timeouts.first_byte == 2.5


def test_secrets_never_show_in_the_repr(tmp_path: Path) -> None:
    shown = repr(load(tmp_path, EVERYTHING))
    assert "sk-plain" not in shown
    assert "s3cret" not in shown


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings.gateway.listen == "0.0.0.0:31313"
    assert settings.gateway.metrics_listen == "0.0.0.0:31314"
    assert (settings.gateway.commit_ms, settings.gateway.max_body_mb) == (800, 64)
    assert settings.ledger.slice_tokens == 512
    assert settings.timeouts.between_bytes == 300
    assert settings.residency.max_wait_secs == 600


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "[gateway]\ncommit_ms = 5", CORTEX_GATEWAY__COMMIT_MS="7")
    assert settings.gateway.commit_ms == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nlisen = 'x'", ["gateway.lisen"]),
        ("[gateway]\nlisten = 'here'", ["gateway.listen", "'here'"]),
        ("[gateway]\nmax_body_mb = 0", ["max_body_mb"]),
        ("[gateway]\ntls_cert = '/c'", ["tls_key"]),
        ("[eviction]\nstrategy = 'fifo'", ["strategy"]),
        ("[[neurons]]\nname = 'a'\nendpoint = '10.0.0.1:13131'", ["neurons[0].endpoint"]),
        ("[[neurons]]\nname = 'a'\nendpoint = 'http://h:99999'", ["neurons[0].endpoint"]),
        ("[[neurons]]\nname = 'a'\nendpoint = 'http://h/v1'", ["neurons[0].endpoint"]),
        (
            "[[neurons]]\nname='a'\nendpoint='http://h'\n[[neurons]]\nname='a'\nendpoint='http://i'",
            ["neurons[1].name", "'a'"],
        ),
        (
            "[[neurons]]\nname='a'\nendpoint='http://h'\n[[neurons]]\nname='b'\nendpoint='http://H/'",
            ["neurons[1].endpoint"],
        ),
        ("[[entitlements.keys]]\naccount_id = 'a'", ["keys[0]", "key_env"]),
        (
            "[[entitlements.keys]]\naccount_id = 'a'\nkey = 'x'\nkey_env = 'Y'",
            ["exactly one"],
        ),
        ("[[entitlements.keys]]\naccount_id = 'a'\nkey_sha256 = 'zz'", ["key_sha256"]),
        (
            "[[entitlements.keys]]\naccount_id='a'\nkey='x'\nhard_cap=1\nwindow={kind='rolling'}",
            ["seconds"],
        ),
        (
            (
                "[[entitlements.keys]]\naccount_id='a'\nkey='x'\n"
                "[[entitlements.keys]]\naccount_id='a'\nkey='y'\nhard_cap=1"
            ),
            ["keys[1]", "key_id"],
        ),
        ("[[entitlements.keys]]\naccount_id=''\nkey='x'", ["keys[0].account_id"]),
        ('[[entitlements.keys]]\naccount_id="a"\nkey="x\\n"', ["keys[0].key", "line break"]),
        (f"[[entitlements.keys]]\naccount_id='a'\nkey='x'\nhard_cap={10**20}", ["most"]),
        ("[gateway]\nlisten='[::]:9'\nmetrics_listen='[::]:9'", ["metrics_listen", "[::]:9"]),
        ("[gateway]\ntls_cert='~nobody-at-all/c'\ntls_key='/k'", ["gateway.tls_cert", "home"]),
        ("[timeouts]\nconnect = 0", ["timeouts.connect"]),
        ("[timeouts]\nfirst_byte = inf", ["timeouts.first_byte"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    for word in ["cortex.toml", *words]:
        assert word in str(caught.value)


def test_a_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff[gateway]\ncommit_ms = 5").gateway.commit_ms == 5


def test_two_secrets_of_one_key_may_share_its_name(tmp_path: Path) -> None:
    text = (
        "[[entitlements.keys]]\naccount_id='a'\nkey='x'\nhard_cap=1\n"
        "[[entitlements.keys]]\naccount_id='a'\nkey='y'\nhard_cap=1"
    )
    assert len(load(tmp_path, text).entitlements.keys) == 2


def test_listen_addresses_split() -> None:
    assert split_listen("0.0.0.0:0") == ("0.0.0.0", 0)
    assert split_listen("[::1]:80") == ("::1", 80)
