"""Settings that cannot be used are refused in words that show none of their secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
from helexa.cortex.auth import settings_keys
from helexa.cortex.settings import load_settings

S = "hunter2Xyzzy"
KEY = f'[[entitlements.keys]]\naccount_id = "a"\nkey = "{S}"\n'

BROKEN = {
    "toml that does not parse": f'[[entitlements.keys]]\nkey = "{S}\n',
    "a value without quotes": f"[[entitlements.keys]]\nkey = {S}\n",
    "a key of the wrong type": f'[[entitlements.keys]]\naccount_id = "a"\nkey = ["{S}"]\n',
    "a secret where a number belongs": f'{KEY}hard_cap = "{S}"\n',
    "a secret where a table belongs": f'[entitlements]\nkeys = "{S}"\n',
    "a secret as a digest": f'[[entitlements.keys]]\naccount_id = "a"\nkey_sha256 = "{S}"\n',
    "a secret given twice": f'{KEY}key_env = "B"\n',
    "an unknown key beside a secret": f'{KEY}hard_kap = "{S}"\n',
    "one secret for two keys": f'{KEY}[[entitlements.keys]]\naccount_id = "b"\nkey = "{S}"\n',
    "rights that differ": f"{KEY}{KEY.replace(S, S + '2')}admin = true\n",
    "an endpoint with a password": f'[[neurons]]\nname = "n"\nendpoint = "http://u:{S}@h:1"\n',
    "an endpoint with a password and no port": (
        f'[[neurons]]\nname = "n"\nendpoint = "ftp://u:{S}@h:x"\n'
    ),
    "two endpoints with a password": 2 * f'[[neurons]]\nname = "n"\nendpoint = "http://{S}@h"\n',
    "a fleet secret of the wrong type": f'[fleet]\nsecret = {{a = "{S}"}}\n',
    "two fleet secrets": f'[fleet]\nsecret = "{S}"\nsecret_env = "B"\n',
    "a secret as an address": f'[gateway]\nlisten = "{S}"\n[fleet]\nsecret = "{S}"\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_refused_shows_no_secret(tmp_path: Path, name: str) -> None:
    file = tmp_path / "cortex.toml"
    file.write_text(BROKEN[name])
    with pytest.raises(SettingsError) as refused:
        found = load_settings(file, {}, {}).value
        found.fleet.resolve({})
        settings_keys(found.entitlements, {})
    if name != "a secret as an address":  # whoever writes one there has told it everybody
        assert S not in str(refused.value)
    assert any(where in str(refused.value) for where in (str(file), "entitlements", "fleet:"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CORTEX_ENTITLEMENTS__KEYS", f'[{{"account_id": "a", "key": "{S}", "x": 1}}]'),
        ("CORTEX_ENTITLEMENTS__KEYS", f'[{{"account_id": "a", "key": "{S}"'),
        ("CORTEX_ENTITLEMENTS__KEYS", S),
        ("CORTEX_FLEET__SECRET", f'{{"a": "{S}"}}'),
        ("CORTEX_LEDGER__LEASE_SECS", S),
    ],
)
def test_a_variable_that_is_refused_shows_no_secret(
    tmp_path: Path, variable: str, value: str
) -> None:
    try:
        loaded = load_settings(None, {}, {variable: value}, tmp_path / "none.toml")
    except SettingsError as refused:
        assert S not in str(refused)  # noqa: PT017 - a text may also be fine as a fleet secret
    else:
        assert S not in repr(loaded)


def test_settings_that_are_fine_show_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "cortex.toml"
    file.write_text(f'{KEY}[fleet]\nsecret = "{S}"\n')
    loaded = load_settings(file, {}, os.environ)
    assert S not in repr(loaded) + str(loaded) + repr(loaded.value.entitlements.keys[0].key)
