"""The keys of cortex.toml while the gateway runs: added, changed, taken away."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from helexa.core.errors import InsufficientQuota, InvalidApiKey
from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal
from helexa.core.settings import SettingsError
from helexa.cortex.auth import KeyTable
from helexa.cortex.entitlements import EntitlementSettings
from helexa.cortex.keys.file import KeysFile
from helexa.cortex.keys.fixed import fixed_of
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.keys import MemoryKeys
from helexa.cortex.settings import CortexSettings, load_settings

pytestmark = pytest.mark.anyio

STRICT = "[entitlements]\nrequire_auth = true\n"
TEAM = '[[entitlements.keys]]\nkey = "sk-team"\naccount_id = "team"\nhard_cap = {cap}\n'


class Rig:
    """A file, and a keyring and a book that follow it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.path.write_text(STRICT + text)
        self.environ: dict[str, str] = {}
        self.book = Book(lambda: 1_800_000_000.0, hold_wait_s=0.01)
        first = fixed_of(self.read(), self.environ)
        table = KeyTable(first.keys.items(), required=True, now=lambda: 1_800_000_000.0)
        self.keyring = Keyring(
            first.keys, first.accounts, MemoryKeys(), table,
            now=lambda: 1_800_000_000.0, log=get_logger(), changed=self.book.bind,
        )  # fmt: skip
        self.file = KeysFile(path, self.read, self.keyring, self.environ)

    def read(self) -> EntitlementSettings:
        settings: CortexSettings = load_settings(self.path, {}, {}).value
        return settings.entitlements

    async def write(self, text: str, head: str = STRICT) -> list[str]:
        self.path.write_text(head + text)
        return await self.file.refresh(asked=True)

    def who(self, secret: str) -> Principal:
        return self.keyring.table.resolve(f"Bearer {secret}".encode(), None)


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path / "cortex.toml", TEAM.format(cap=100))
    await made.keyring.refresh()
    return made


async def test_a_file_that_did_not_change_is_not_read_and_changes_nobody(rig: Rig) -> None:
    before = rig.who("sk-team")
    assert await rig.file.refresh() == []
    assert await rig.file.refresh(asked=True) == []
    assert rig.who("sk-team") is before


async def test_keys_are_added_changed_and_removed_and_the_rest_stays(rig: Rig) -> None:
    before = rig.who("sk-team")
    more = '[[entitlements.keys]]\nkey = "sk-new"\naccount_id = "new"\n'
    assert await rig.write(TEAM.format(cap=100) + more) == ["added new"]
    assert rig.who("sk-new").account_id == "new"
    assert rig.who("sk-team") is before
    assert await rig.write(TEAM.format(cap=300).replace("sk-team", "sk-other") + more) == [
        "changed team"
    ]
    assert rig.who("sk-other").caps == (Cap(300),)
    with pytest.raises(InvalidApiKey):
        rig.who("sk-team")
    assert await rig.write(more) == ["removed team"]
    with pytest.raises(InvalidApiKey):
        rig.who("sk-other")


async def test_caps_of_accounts_and_optional_keys_are_followed(rig: Rig) -> None:
    shared = '[[entitlements.accounts]]\naccount_id = "team"\nhard_cap = 70\n'
    assert await rig.write(TEAM.format(cap=100) + shared, head="") == [
        "changed team",
        "changed account team",
        "require_auth = false",
    ]
    assert rig.who("sk-team").account_caps == (Cap(70),)
    assert rig.who("sk-nobody").key_id == "anonymous"


async def test_what_cannot_be_used_changes_nothing(rig: Rig) -> None:
    for text in (
        TEAM.format(cap='"many"'),
        TEAM.format(cap=5) * 2,
        TEAM.format(cap=5).replace('key = "sk-team"', 'key_env = "NOT_SET"'),
    ):
        with pytest.raises(SettingsError):
            await rig.write(text)
        assert rig.who("sk-team").caps == (Cap(100),)
    rig.path.unlink()
    assert await rig.file.refresh(asked=True) == []


async def test_new_caps_bind_what_is_open_and_what_was_spent(rig: Rig) -> None:
    grant = rig.book.grant(rig.who("sk-team"), "a", 1, 60)
    assert isinstance(grant, Grant)
    await rig.write(TEAM.format(cap=70))
    assert rig.book.extend("a", 1, 60, 90) == 70
    await rig.write(TEAM.format(cap=200))
    assert rig.book.extend("a", 1, 70, 90) == 90
    rig.book.settle(Settlement("a", 1, 50, 40))
    await rig.write(TEAM.format(cap=90))
    with pytest.raises(InsufficientQuota):
        rig.book.grant(rig.who("sk-team"), "b", 1, 10)


async def test_a_key_that_is_removed_or_uncapped_keeps_its_open_grants(rig: Rig) -> None:
    grant = rig.book.grant(rig.who("sk-team"), "a", 1, 60)
    assert isinstance(grant, Grant)
    await rig.write(TEAM.format(cap=100).replace("hard_cap = 100", ""))
    assert rig.book.extend("a", 1, 60, 90) == 90
    await rig.write("")
    settled = rig.book.settle(Settlement("a", 1, 50, 40))
    assert settled is not None
    assert settled.total == 90
    assert not rig.book.snapshot().grants


async def test_no_secret_is_in_the_words_of_a_change(rig: Rig) -> None:
    digest = sha256(b"sk-hidden").hexdigest()
    more = f'[[entitlements.keys]]\nkey_sha256 = "{digest}"\naccount_id = "new"\n'
    words = await rig.write(more)
    assert words == ["removed team", "added new"]
