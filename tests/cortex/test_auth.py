"""Keys are found by digest, in both headers, and never shown."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

import pytest

from helexa.core.errors import InvalidApiKey
from helexa.core.principal import ANONYMOUS
from helexa.core.settings import SettingsError
from helexa.cortex import auth
from helexa.cortex.auth import KeyTable, key_table
from helexa.cortex.settings import load_settings

TEXT = f"""
[entitlements]
require_auth = REQUIRED
[[entitlements.keys]]
key = "sk-plain"
account_id = "plain"
admin = true
[[entitlements.keys]]
key_sha256 = "{sha256(b"sk-hashed").hexdigest()}"
account_id = "hashed"
[[entitlements.keys]]
key_env = "KEY_IN_ENV"
account_id = "env"
expires = 2026-01-01T00:00:00
"""
EXPIRES = 1767225600.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def table(
    tmp_path: Path,
    clock: Clock,
    *,
    required: bool = True,
    text: str = TEXT,
    variable: str = "sk-env",
) -> KeyTable:
    path = tmp_path / "cortex.toml"
    path.write_text(text.replace("REQUIRED", str(required).lower()), encoding="utf-8")
    settings = load_settings(path, {}, {}).value
    return key_table(settings.entitlements, {"KEY_IN_ENV": variable}, clock)


def test_plain_hashed_and_environment_keys_resolve_from_both_headers(
    tmp_path: Path, clock: Clock
) -> None:
    keys = table(tmp_path, clock)
    for secret, account in ((b"sk-plain", "plain"), (b"sk-hashed", "hashed"), (b"sk-env", "env")):
        assert keys.resolve(b"Bearer " + secret, None).account_id == account
        assert keys.resolve(b"bearer  " + secret, None).account_id == account
        assert keys.resolve(None, secret).account_id == account
        assert keys.resolve(b"Bearer stale", secret).account_id == account
    assert keys.has_admin


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "word"),
    [
        (None, None, "No API key"),
        (b"", b"", "No API key"),
        (b"Bearer ", None, "No API key"),
        (b"Basic c2stcGxhaW4=", None, "No API key"),
        (b"Bearer sk-other", None, "unknown"),
        (None, b"sk-other", "unknown"),
        (b"sk-plain", None, "No API key"),
    ],
)
def test_missing_and_unknown_keys_are_refused_when_one_is_required(
    tmp_path: Path, clock: Clock, authorization: bytes | None, x_api_key: bytes | None, word: str
) -> None:
    with pytest.raises(InvalidApiKey, match=word) as caught:
        table(tmp_path, clock).resolve(authorization, x_api_key)
    assert "sk-other" not in str(caught.value)
    assert table(tmp_path, clock, required=False).resolve(authorization, x_api_key) is ANONYMOUS


def test_an_expired_key_stops_working_at_its_second(tmp_path: Path, clock: Clock) -> None:
    keys = table(tmp_path, clock)
    clock.now = EXPIRES - 0.001
    assert keys.resolve(None, b"sk-env").account_id == "env"
    clock.now = EXPIRES
    with pytest.raises(InvalidApiKey, match="expired"):
        keys.resolve(None, b"sk-env")


def test_a_miss_compares_as_a_hit_does(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(auth, "compare_digest", spy)
    keys = table(tmp_path, clock, required=False)
    keys.resolve(None, b"sk-plain")
    keys.resolve(None, b"sk-other")
    assert compared == [(32, 32), (32, 32)]


def test_no_secret_is_kept_or_shown(tmp_path: Path, clock: Clock) -> None:
    keys = table(tmp_path, clock)
    everything = repr(keys) + repr(keys.principals) + repr(keys._index.by_digest)
    assert "sk-" not in everything


def test_a_variable_that_is_not_set_and_a_secret_twice_are_refused(
    tmp_path: Path, clock: Clock
) -> None:
    with pytest.raises(SettingsError, match="NOWHERE"):
        table(tmp_path, clock, text=TEXT.replace("KEY_IN_ENV", "NOWHERE"))
    twice = "[[entitlements.keys]]\nkey='sk-plain'\naccount_id='again'\n"
    with pytest.raises(SettingsError, match=r"'again'.*'plain'"):
        table(tmp_path, clock, text=TEXT + twice)


@pytest.mark.parametrize("variable", ["sk-env\n", " sk-env", "sk\nenv"])
def test_a_variable_that_no_client_could_send_is_refused_by_its_name(
    tmp_path: Path, clock: Clock, variable: str
) -> None:
    with pytest.raises(SettingsError, match=r"keys\[2\]\.key_env: KEY_IN_ENV") as caught:
        table(tmp_path, clock, variable=variable)
    assert "env\n" not in str(caught.value)
