"""Keys while they change: what is made works at once, what has ended does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from hashlib import sha256
from pathlib import Path

import pytest

from helexa.core.errors import InvalidApiKey, InvalidRequestBody
from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal
from helexa.cortex.auth import KeyIndex, KeyTable, Known
from helexa.cortex.keys import keyring
from helexa.cortex.keys.keyring import FOLLOW_S, Keyring
from helexa.cortex.keys.mint import SHOWN
from helexa.cortex.ledger.keys import KeyRights, KeyStore, MemoryKeys
from helexa.cortex.ledger.keys_sql import SqlKeys
from helexa.cortex.ledger.store import Store

pytestmark = pytest.mark.anyio

ROOT = Principal("ops", "root", admin=True)
NOBODY = KeyRights()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Stores = Callable[[], KeyStore]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Opens one place again and again, as several gateways would."""
    if request.param == "memory":
        only = MemoryKeys()
        yield lambda: only
        return
    url = f"sqlite://{tmp_path}/ledger.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    opened: list[Store] = []

    def make() -> KeyStore:
        opened.append(Store(url, asyncio.get_running_loop()))
        return SqlKeys(opened[-1])

    yield make
    for one in opened:
        await one.close()


@pytest.fixture
async def store(stores: Stores) -> KeyStore:
    return stores()


@pytest.fixture
def ring(store: KeyStore, clock: Clock) -> Keyring:
    return make(store, clock)


def make(
    store: KeyStore, clock: Callable[[], float], accounts: dict[str, tuple[Cap, ...]] | None = None
) -> Keyring:
    fixed = {sha256(b"sk-root").digest(): ROOT}
    table = KeyTable(fixed.items(), required=True, now=clock)
    return Keyring(fixed, accounts or {}, store, table, now=clock, log=get_logger())


def who(ring: Keyring, secret: str) -> Principal:
    return ring.table.resolve(f"Bearer {secret}".encode(), None)


def known(ring: Keyring, secret: str) -> bool:
    try:
        return bool(who(ring, secret))
    except InvalidApiKey:
        return False


async def test_a_key_that_was_made_works_at_once_in_both_headers_with_its_rights(
    ring: Keyring, clock: Clock
) -> None:
    rights = KeyRights(
        caps=(Cap(100),), admin=True, models=("m",), may_load=False, priority=3,
        expires=clock.now + 60, requests_per_minute=5, max_concurrent=2,
    )  # fmt: skip
    view, secret = await ring.create("acme", "acme-ci", rights, "for the builds")
    asked = who(ring, secret.reveal())
    assert asked == ring.table.resolve(None, secret.reveal().encode())
    assert (asked.account_id, asked.key_id, asked.caps) == ("acme", "acme-ci", (Cap(100),))
    assert (asked.admin, asked.models, asked.may_load) == (True, ("m",), False)
    assert (asked.priority, asked.requests_per_minute, asked.max_concurrent) == (3, 5, 2)
    assert (view.state, view.note, view.source) == ("active", "for the builds", "ledger")
    clock.now += 60
    with pytest.raises(InvalidApiKey, match="expired"):
        who(ring, secret.reveal())
    found = ring.find("acme-ci")
    assert found is not None
    assert found.state == "expired"


async def test_a_key_is_found_by_the_first_letters_of_its_secret_and_by_no_others(
    ring: Keyring,
) -> None:
    view, secret = await ring.create("acme", None, NOBODY, "")
    assert view.prefixes == (secret.reveal()[:SHOWN],)
    for name in (view.key_id, view.prefixes[0], secret.reveal()):
        found = ring.find(name)
        assert found is not None
        assert found.key_id == view.key_id
    assert ring.find("sk-hx-") is None
    assert ring.find("sk-hx-??????") is None


async def test_every_key_is_gone_through_in_a_thread_however_many_there_are(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def watched(keys: Iterable[Known]) -> KeyIndex:
        threads.append(threading.get_ident())
        return KeyIndex(keys)

    monkeypatch.setattr(keyring, "KeyIndex", watched)
    await ring.create("acme", "acme-ci", NOBODY, "")
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_no_secret_and_no_digest_is_kept_where_it_can_be_seen(ring: Keyring) -> None:
    _, secret = await ring.create("acme", "a", NOBODY, "")
    text = secret.reveal()
    seen = repr(list(ring.views())) + repr(ring._registry) + repr(ring.table) + repr(secret)
    assert text not in seen
    assert text[SHOWN:] not in seen
    assert sha256(text.encode()).hexdigest() not in seen
    kept = (await ring._store.read()).secrets[0]
    assert kept.digest == sha256(text.encode()).digest()
    assert text not in repr(kept)


async def test_a_rotated_key_stays_who_it_is_and_the_old_secret_ends_at_once(
    ring: Keyring,
) -> None:
    _, old = await ring.create("acme", "a", KeyRights(caps=(Cap(9),)), "")
    before = who(ring, old.reveal())
    view, new = await ring.rotate("a", 0)
    assert who(ring, new.reveal()) is before
    assert view.prefixes == (new.reveal()[:SHOWN],)
    with pytest.raises(InvalidApiKey):
        who(ring, old.reveal())


async def test_an_old_secret_counts_for_its_grace_and_no_longer(
    ring: Keyring, clock: Clock
) -> None:
    _, first = await ring.create("acme", "a", NOBODY, "")
    view, second = await ring.rotate("a", 3600)
    assert len(view.prefixes) == 2
    clock.now += 3599
    assert who(ring, first.reveal()) is who(ring, second.reveal())
    _, third = await ring.rotate("a", 10)  # shortens what the first still had, never lengthens
    clock.now += 1
    with pytest.raises(InvalidApiKey, match="expired"):
        who(ring, first.reveal())
    assert who(ring, second.reveal()) is who(ring, third.reveal())
    clock.now += 9
    with pytest.raises(InvalidApiKey):
        who(ring, second.reveal())
    assert who(ring, third.reveal()).key_id == "a"


async def test_a_revoked_key_ends_with_all_its_secrets_and_for_good(ring: Keyring) -> None:
    _, first = await ring.create("acme", "a", NOBODY, "")
    _, second = await ring.rotate("a", 3600)
    view = await ring.revoke("a")
    assert (view.state, view.prefixes) == ("revoked", ())
    for secret in (first, second):
        with pytest.raises(InvalidApiKey, match="unknown"):
            who(ring, secret.reveal())
    for again in (ring.rotate("a", 0), ring.revoke("a"), ring.change("a", NOBODY, "")):
        with pytest.raises(InvalidRequestBody, match="revoked"):
            await again
    with pytest.raises(InvalidRequestBody, match="is or was"):
        await ring.create("acme", "a", NOBODY, "")  # it would inherit what was spent


async def test_other_rights_hold_for_the_next_request(ring: Keyring) -> None:
    _, secret = await ring.create("acme", "a", KeyRights(caps=(Cap(5),)), "x")
    await ring.change("a", KeyRights(caps=(Cap(50),), models=("m",)), "y")
    assert (who(ring, secret.reveal()).caps, who(ring, secret.reveal()).models) == (
        (Cap(50),),
        ("m",),
    )
    found = ring.find("a")
    assert found is not None
    assert found.note == "y"


async def test_an_accounts_caps_bind_its_keys_wherever_they_are_kept(
    store: KeyStore, clock: Clock
) -> None:
    ring = make(store, clock, {"sealed": (Cap(7),)})
    _, one = await ring.create("ops", "one", NOBODY, "")
    _, two = await ring.create("sealed", "two", NOBODY, "")
    await ring.put_account("ops", (Cap(1000),))
    assert who(ring, one.reveal()).account_caps == (Cap(1000),)
    assert who(ring, "sk-root").account_caps == (Cap(1000),)
    assert who(ring, two.reveal()).account_caps == (Cap(7),)
    with pytest.raises(InvalidRequestBody, match=r"cortex\.toml"):
        await ring.put_account("sealed", ())
    assert [(a.account_id, a.source, a.caps, a.keys) for a in ring.accounts()] == [
        ("ops", "ledger", (Cap(1000),), ("root", "one")),
        ("sealed", "settings", (Cap(7),), ("two",)),
    ]
    await ring.put_account("ops", ())
    assert who(ring, "sk-root").account_caps == ()


async def test_keys_of_cortex_toml_are_changed_there_and_win_over_the_ledger(
    ring: Keyring, store: KeyStore, clock: Clock
) -> None:
    for change in (ring.rotate("root", 0), ring.revoke("root"), ring.change("root", NOBODY, "")):
        with pytest.raises(InvalidRequestBody, match=r"cortex\.toml"):
            await change
    with pytest.raises(InvalidRequestBody, match="is or was"):
        await ring.create("x", "root", NOBODY, "")
    # Made while cortex.toml had no such key, or by a gateway that has none.
    other = Keyring({}, {}, store, KeyTable((), required=True, now=clock), now=clock,
                    log=get_logger())  # fmt: skip
    _, secret = await other.create("x", "root", NOBODY, "")
    await ring.refresh()
    with pytest.raises(InvalidApiKey):
        who(ring, secret.reveal())
    assert who(ring, "sk-root") == ROOT


async def test_what_another_gateway_changes_is_taken_in_within_a_second(
    stores: Stores, clock: Clock
) -> None:
    here, there = make(stores(), clock), make(stores(), clock)
    following = asyncio.create_task(here.follow())
    try:
        for _ in range(2):
            _, secret = await there.create("acme", None, NOBODY, "")
            async with asyncio.timeout(60):  # a busy machine is no fault of ours
                while not known(here, secret.reveal()):
                    await asyncio.sleep(0.01)
    finally:
        following.cancel()
    assert FOLLOW_S <= 0.5


async def test_a_store_that_fails_leaves_the_known_keys_working(
    store: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = make(store, clock)
    _, secret = await ring.create("acme", "a", NOBODY, "")
    failed = asyncio.Event()

    async def broken() -> int:
        failed.set()
        raise OSError("the disk is gone")

    monkeypatch.setattr(store, "revision", broken)
    following = asyncio.create_task(ring.follow())
    async with asyncio.timeout(30):
        await failed.wait()
    assert who(ring, secret.reveal()).key_id == "a"
    assert not following.done()
    following.cancel()


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "é", "x" * 65, "anonymous", 'a"b', "a\n"])
async def test_names_that_would_break_a_path_a_label_or_a_line_are_refused(
    ring: Keyring, name: str
) -> None:
    with pytest.raises(InvalidRequestBody, match="account_id"):
        await ring.create(name, "fine", NOBODY, "")
    with pytest.raises(InvalidRequestBody, match="key_id"):
        await ring.create("fine", name, NOBODY, "")
    with pytest.raises(InvalidRequestBody, match="account_id"):
        await ring.put_account(name, ())


async def test_two_that_make_a_key_of_one_name_get_one_key(stores: Stores, clock: Clock) -> None:
    rings = [make(stores(), clock) for _ in range(4)]
    tries = await asyncio.gather(
        *(ring.create("acme", "one", NOBODY, "") for ring in rings), return_exceptions=True
    )
    assert sum(not isinstance(made, BaseException) for made in tries) == 1
    assert all(
        isinstance(made, InvalidRequestBody) for made in tries if isinstance(made, BaseException)
    )


async def test_a_key_that_is_rotated_and_revoked_at_once_ends(stores: Stores, clock: Clock) -> None:
    here, there = make(stores(), clock), make(stores(), clock)
    for name in ("a", "b", "c"):
        _, first = await here.create("acme", name, NOBODY, "")
        await there.refresh()
        tries = await asyncio.gather(
            here.rotate(name, 3600), there.revoke(name), return_exceptions=True
        )
        for ring in (here, there):
            await ring.refresh()
            secrets = [first, *(made[1] for made in tries if isinstance(made, tuple))]
            for secret in secrets:
                with pytest.raises(InvalidApiKey):
                    who(ring, secret.reveal())
