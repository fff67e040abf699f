"""``helexa keys`` against a gateway process: what a person types, and what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.system.rig import CortexProcess

CONFIG = """
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
"""


class Typed:
    """A person at a terminal, with the operator's key in the environment."""

    def __init__(self, cortex: CortexProcess) -> None:
        self.cortex = cortex
        self.environ = {"HELEXA_ENDPOINT": cortex.url, "HELEXA_KEY": "sk-root", "PATH": ""}

    def run(self, *words: str, status: int = 0, key: str = "sk-root") -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "helexa.cli", *words],
            env=self.environ | {"HELEXA_KEY": key},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def allowed(self, secret: str) -> int:
        """The status of a request with that secret."""
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.get(f"{self.cortex.url}/v1/models", headers=headers, timeout=60).status_code


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    cortex = CortexProcess(tmp_path_factory.mktemp("keys"), CONFIG).start()
    yield Typed(cortex)
    cortex.stop()


def test_a_keys_whole_life_from_create_to_revoke(typed: Typed) -> None:
    caps = ("--cap", "2m", "--cap", "500k/24h")
    limits = ("--expires", "30d", "--requests-per-minute", "60", "--note", "builds")
    made = typed.run("keys", "create", "guild", "--id", "ci", *caps, *limits)
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n"  # KEY=$(helexa keys create …)
    assert "shown only now" in made.stderr
    assert typed.allowed(secret) == 200

    listed = typed.run("keys", "list").stdout
    assert f"{secret[:12]}…" in listed
    assert secret not in listed
    assert "500k/1d" in listed
    assert "60/min" in listed
    shown = typed.json("keys", "show", secret[:12])
    assert (shown["key_id"], shown["note"]) == ("ci", "builds")
    assert [c["tokens"] for c in shown["caps"]] == [2_000_000, 500_000]
    assert "2,000,000 left" in typed.run("keys", "show", "ci").stdout

    typed.run("keys", "set", "ci", "--cap", "3m", "--lift", "requests-per-minute")
    shown = typed.json("keys", "show", "ci")
    assert (shown["caps"][0]["tokens"], shown["requests_per_minute"]) == (3_000_000, None)
    assert shown["note"] == "builds"

    rotated = typed.run("keys", "rotate", "ci", "--grace", "1h").stdout.strip()
    assert (typed.allowed(secret), typed.allowed(rotated)) == (200, 200)
    last = typed.run("keys", "rotate", "ci").stdout.strip()
    assert [typed.allowed(one) for one in (secret, rotated, last)] == [401, 401, 200]

    assert "revoked" in typed.run("keys", "revoke", "ci").stdout
    assert typed.allowed(last) == 401
    assert "ci" not in typed.run("keys", "list").stdout.split()
    assert [k["state"] for k in typed.json("keys", "list", "--all", "--account", "guild")["keys"]] \
        == ["revoked"]  # fmt: skip


def test_accounts_are_given_caps_and_listed(typed: Typed) -> None:
    typed.run("keys", "create", "shop", "--id", "shop-a")
    assert typed.run("keys", "account", "shop", "--cap", "1m/7d").stdout == "shop: 1m/1w\n"
    listed = typed.run("keys", "accounts").stdout
    assert any(line.split() == ["shop", "1m/1w", "shop-a"] for line in listed.splitlines())
    assert "1m/1w" in typed.run("keys", "list", "--account", "shop").stdout
    assert typed.run("keys", "account", "shop", "--uncapped").stdout == "shop: uncapped\n"


def test_what_is_refused_is_said_in_the_gateways_words_and_status_1(typed: Typed) -> None:
    typed.run("keys", "create", "acme", "--id", "twice")
    assert "is or was a key called 'twice'" in (
        typed.run("keys", "create", "acme", "--id", "twice", status=1).stderr
    )
    assert "cortex.toml" in typed.run("keys", "revoke", "ops", status=1).stderr
    assert "HELEXA_KEY" in typed.run("keys", "list", status=1, key="sk-wrong").stderr
    secret = typed.run("keys", "create", "acme").stdout.strip()
    assert "HELEXA_KEY" in typed.run("keys", "list", status=1, key=secret).stderr
    for wrong in (["--cap", "many"], ["--cap", "5m/24"], ["--expires", "30"]):
        assert "Error: Invalid value" in typed.run("keys", "create", "a", *wrong, status=2).stderr
    assert "nothing to change" in typed.run("keys", "set", "twice", status=2).stderr
    assert "give either" in typed.run("keys", "account", "acme", status=2).stderr


def test_a_whole_secret_given_as_a_name_never_leaves_this_machine(typed: Typed) -> None:
    secret = typed.run("keys", "create", "acme").stdout.strip()
    assert typed.json("keys", "show", secret)["prefixes"] == [secret[:12]]
    assert secret[12:] not in (typed.cortex.folder / "log").read_text()


def test_the_openai_sdk_sees_401_for_an_expired_key_and_403_for_a_forbidden_model(
    typed: Typed,
) -> None:
    def ask(secret: str, model: str = "helexa/spark") -> None:
        with openai.OpenAI(base_url=f"{typed.cortex.url}/v1", api_key=secret, max_retries=0) as sdk:
            sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])

    past = typed.run("keys", "create", "acme", "--expires", "2020-01-01").stdout.strip()
    with pytest.raises(openai.AuthenticationError) as unknown:
        ask(past)
    assert unknown.value.code == "invalid_api_key"
    other = typed.run("keys", "create", "acme", "--model", "other").stdout.strip()
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        ask(other)
    assert forbidden.value.code == "forbidden"


def test_nobody_there_is_said_with_the_endpoint(typed: Typed) -> None:
    done = typed.run("keys", "list", "--endpoint", "http://127.0.0.1:1", status=1)
    assert "http://127.0.0.1:1" in done.stderr


def test_durations_caps_and_dates_are_read_and_written_alike() -> None:
    from helexa.cli.quantities import CapType, cap_words, date_words, duration, seconds_of

    for text in ("90s", "15m", "36h", "1d", "30d", "2w"):
        seconds = seconds_of(text)
        assert seconds is not None
        assert seconds_of(duration(seconds)) == seconds
    for text in ("2m", "500k/1d", "1,234/90s", "7g"):
        assert cap_words(CapType().convert(text, None, None)) == text
    assert [seconds_of(text) for text in ("", "x", "1y", "-3s", "24")] == [None] * 5
    assert [date_words(at) for at in (None, 0, 60)] == ["", "1970-01-01", "1970-01-01 00:01"]
