"""Keys and budgets: the open ledger, who may spend from it, and how what was spent is booked."""

from __future__ import annotations

import time

from helexa.core.fleet import RequestRecord
from helexa.cortex.auth import KeyTable, settings_keys
from helexa.cortex.build.parts import Parts
from helexa.cortex.exchange.recovering import Recovery
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.keys import MemoryKeys
from helexa.cortex.ledger.keys_sql import SqlKeys
from helexa.cortex.ledger.opening import OpenLedger, default_url
from helexa.cortex.observers import RequestObservers
from helexa.cortex.usage import keep_for


def ledger_url(parts: Parts) -> str:
    """Where the ledger is."""
    return parts.settings.ledger.url or default_url(parts.environ)


def open_ledger(parts: Parts) -> OpenLedger:
    """The ledger that the settings name.

    Raises:
        SettingsError: The url is none of ours, or a newer helexa has used the ledger.
        LedgerUnavailable: It cannot be opened, or another gateway uses it.
    """
    given = parts.settings.ledger
    return OpenLedger(
        ledger_url(parts),
        gateway=parts.name,
        epoch=parts.epoch,
        lease_s=given.lease_secs,
        hold_wait_s=given.grant_wait_ms / 1000,
        log=parts.log,
    )


def make_keyring(parts: Parts, kept: OpenLedger) -> Keyring:
    """The keys of cortex.toml and those of the ledger; the latter are read before serving."""
    given = parts.settings.entitlements
    fixed = settings_keys(given, parts.environ)
    accounts = {account.account_id: account.all_caps for account in given.accounts}
    table = KeyTable(fixed.items(), required=given.require_auth, now=time.time)
    store = MemoryKeys() if kept.store is None else SqlKeys(kept.store)
    return Keyring(
        fixed, accounts, store, table, now=time.time, log=parts.log, changed=kept.book.bind
    )


def make_settler(
    parts: Parts,
    kept: OpenLedger,
    fleet: Fleet,
    observers: RequestObservers,
) -> Settler:
    """Books what ended with the nodes' word.

    Args:
        fleet: The nodes, and the ways to them.
        observers: Told of the records of which the exchanges have not seen the counts.
    """

    def counted(record: RequestRecord, billed: bool) -> None:
        parts.metrics.recorded(record, billed=billed)
        if not billed:
            observers.discarded(record)

    def heard(node: str, record: RequestRecord) -> None:
        parts.metrics.heard(node, record)
        observers.heard(record)

    return Settler(
        kept.book,
        fleet.api,
        lambda: (node.name for node in fleet.snapshot().nodes),
        booked=parts.metrics.spent,
        heard=heard,
        counted=counted,
        late=lambda node, records, tokens: _late(parts, node, records, tokens),
        slice_tokens=parts.settings.ledger.slice_tokens,
        lease_s=parts.settings.ledger.lease_secs,
        gateway=parts.name,
        epoch=parts.epoch,
    )


def _late(parts: Parts, node: str, records: int, tokens: int) -> None:
    """Count, and say, what is not billed because it was told too late."""
    parts.metrics.ledger_late.inc(tokens)
    what = "records came after their requests were settled; their tokens are not billed"
    parts.log.warning(what, node=node, records=records, tokens=tokens)


async def recover(parts: Parts, kept: OpenLedger, keyring: Keyring, fleet: Fleet) -> None:
    """Settle for gateways that have died, until cancelled."""
    if kept.estate is None:
        return
    book = kept.book

    def estimated(tokens: int) -> None:
        book.estimated += tokens

    recovery = Recovery(
        kept.estate,
        lambda: (node.name for node in fleet.snapshot().nodes),
        fleet.api,
        booked=parts.metrics.spent,
        counted=parts.metrics.recorded,
        freed=book.refresh,
        estimated=estimated,
        late=lambda node, records, tokens: _late(parts, node, records, tokens),
        log=parts.log,
    )
    await book.learn(keyring.table.principals)  # so that a key's first grant asks but once
    await recovery.run()


async def forget_usage(parts: Parts, kept: OpenLedger) -> None:
    """Put away what is older than the settings say, until cancelled."""
    if kept.store is not None:
        days = parts.settings.ledger.usage_retention_days
        await keep_for(kept.store, days, kept.now, parts.log)
