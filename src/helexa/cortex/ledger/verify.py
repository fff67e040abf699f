"""Proves a ledger's sums: every token that counts against a cap has a request that cost it."""

from __future__ import annotations

import msgspec

from helexa.core.settings import SettingsError
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.schema import version_of
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.window import BUCKETS

_MOST = 20


class Check(msgspec.Struct, frozen=True):
    """One statement about the ledger; ``faults`` are what contradicts it, the first few."""

    name: str
    ok: bool
    faults: tuple[str, ...] = ()


class Proof(msgspec.Struct, frozen=True):
    """What ``helexa ledger verify`` prints; tokens.

    Args:
        spent: Σ of what keys have spent.
        held: Σ of the blocks of gateways that live or wait to be recovered.
    """

    ok: bool
    version: int
    requests: int
    spent: int
    held: int
    open: int
    checks: tuple[Check, ...]


_SUMS = """
SELECT s.scope, s.{total}, COALESCE(r.tokens, 0){more} FROM scopes AS s LEFT JOIN
  (SELECT {column} AS name, CAST(SUM({what}) AS BIGINT) AS tokens
   FROM requests WHERE state <> 'open' GROUP BY {column}) AS r ON r.name = {suffix}
WHERE s.scope LIKE '{kind}:%' AND s.{total} <> COALESCE(r.tokens, 0){more}
ORDER BY s.scope
"""


def verify(db: Database) -> Proof:
    """Prove the sums, on one snapshot: a gateway may go on writing.

    Raises:
        SettingsError: The ledger has another version.
        LedgerUnavailable: It cannot be read.
    """
    with db.snapshot():
        version = version_of(db)
        if version != len(STEPS):
            raise SettingsError(
                f"the ledger has version {version}, this helexa knows {len(STEPS)}; "
                "let a gateway of this version open it first, or use the helexa that wrote it"
            )
        checks = (
            _check("every key's spend is the sum of its requests", _spend(db, "key")),
            _check("every account's spend is the sum of its requests", _spend(db, "account")),
            _check("nothing was settled beyond its grant", _grants(db)),
            _check("an attempt of which nothing was relayed cost nothing", _discarded(db)),
            _check("no window counts less than was spent in it", _windows(db)),
            _check("tokens are held by living gateways only, and none are owed", _blocks(db)),
            _check("the file is whole", _file(db)),
        )
        ((requests, running),) = db.execute(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END), 0) "
            "FROM requests"
        )
        ((spent,),) = db.execute(
            "SELECT COALESCE(SUM(spent), 0) FROM scopes WHERE scope LIKE 'key:%'"
        )
        ((held,),) = db.execute(
            "SELECT COALESCE(SUM(tokens), 0) FROM blocks WHERE scope LIKE 'key:%'"
        )
    return Proof(
        all(check.ok for check in checks),
        version,
        int(requests),
        int(spent),
        int(held),
        int(running),
        checks,
    )


def _check(name: str, faults: list[str]) -> Check:
    return Check(name, not faults, tuple(faults[:_MOST]))


def _spend(db: Database, kind: str) -> list[str]:
    suffix = f"substr(s.scope, {len(kind) + 2})"
    text = _SUMS.format(
        total="spent", what="prompt + completion", more=" + s.archived", kind=kind,
        column=f"{kind}_id", suffix=suffix,
    )  # fmt: skip
    found = [
        f"{scope}: {spent} spent, {tokens} in its requests"
        for scope, spent, tokens in db.execute(text)
    ]
    found += [
        f"{kind}:{name}: {tokens} in its requests, but it is not known"
        for name, tokens in db.execute(
            f"SELECT {kind}_id, CAST(SUM(prompt + completion) AS BIGINT) FROM requests "  # noqa: S608
            "WHERE state <> 'open' AND NOT EXISTS (SELECT 1 FROM scopes "
            f"WHERE scope = '{kind}:' || {kind}_id) GROUP BY {kind}_id"
        )
    ]
    return found


def _grants(db: Database) -> list[str]:
    return [
        f"{request}, attempt {attempt}: {tokens} of {granted} granted"
        for request, attempt, tokens, granted in db.execute(
            "SELECT request_id, attempt, prompt + completion, granted FROM requests "
            "WHERE prompt + completion > granted OR prompt < 0 OR completion < 0 "
            "ORDER BY at DESC LIMIT 20"
        )
    ]


def _discarded(db: Database) -> list[str]:
    return [
        f"{request}, attempt {attempt}: {tokens}"
        for request, attempt, tokens in db.execute(
            "SELECT request_id, attempt, prompt + completion FROM requests "
            "WHERE state = 'discarded' AND prompt + completion > 0 ORDER BY at DESC LIMIT 20"
        )
    ]


def _windows(db: Database) -> list[str]:
    """A bucket may count more than the rows that are left of it, never less."""
    faults: list[str] = []
    for (seconds,) in db.execute("SELECT DISTINCT seconds FROM windows"):
        counted = {
            (scope, bucket): tokens
            for scope, bucket, tokens in db.execute(
                "SELECT w.scope, b.bucket, b.tokens FROM windows AS w JOIN buckets AS b "
                "ON b.scope = w.scope AND b.seconds = w.seconds WHERE w.seconds = ?",
                (seconds,),
            )
        }
        first = min((bucket for _, bucket in counted), default=0)
        for kind in ("key", "account"):
            text = _IN_BUCKETS.format(column=f"{kind}_id")
            for name, bucket, spent in db.execute(
                text, (seconds, first * seconds * 1000 // BUCKETS)
            ):
                found = counted.get((f"{kind}:{name}", bucket))
                if found is not None and found < spent:
                    faults.append(f"{kind}:{name}, {seconds} s: {found} of {spent} are counted")
    return faults


_IN_BUCKETS = (
    f"SELECT {{column}}, at * {BUCKETS} / (CAST(? AS BIGINT) * 1000), "  # noqa: S608  # a column of ours
    "CAST(SUM(prompt + completion) AS BIGINT) FROM requests "
    "WHERE state <> 'open' AND at >= ? GROUP BY 1, 2"
)


def _blocks(db: Database) -> list[str]:
    return [
        f"{scope}: {tokens} held by life {life} ({state or 'unknown'})"
        for scope, life, tokens, state in db.execute(
            "SELECT b.scope, b.life, b.tokens, l.state FROM blocks AS b "
            "LEFT JOIN lives AS l ON l.life = b.life "
            "WHERE b.tokens < 0 OR l.state IS NULL OR l.state <> 'live' ORDER BY b.scope"
        )
    ]


def _file(db: Database) -> list[str]:
    if db.dialect != "sqlite":
        return []  # the server looks after its own pages
    found = [row[0] for row in db.execute("PRAGMA integrity_check(20)")]
    return [] if found == ["ok"] else found
