"""Lives: who may write what, and who looks after a gateway that has died.

::

    live, kept by itself ──dies──▶ live, kept by a later life ──all records settled──▶ ended
         └──────────────────────stops in order──────────────────────────────────────▶ ended

A life's lease is renewed while it lives. Only its keeper settles its requests; somebody else
becomes its keeper when the lease has run out, or at once if it is known to be dead (the same
gateway's earlier life).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from helexa.cortex.ledger.base import RequestKey
from helexa.cortex.ledger.database import Database, LedgerUnavailable
from helexa.cortex.ledger.spend import INSERT, ONCE, Fenced, Line, spend, sums_of

LifeState: TypeAlias = Literal["live", "kept", "ended"]
"""``kept``: dead, and another life settles its requests."""

_MOST: Final = 512  # parameters of one statement


class Life(NamedTuple):
    """One epoch of one gateway.

    Args:
        lease_until: Epoch seconds by the ledger's clock; its own lease, not its keeper's.
        ended: All its requests are settled.
    """

    life: int
    gateway: str
    epoch: int
    lease_until: float
    ended: bool = False


def none_may_serve(db: Database) -> None:
    """Refuse to change the tables under those who go on with them as they were.

    Raises:
        LedgerUnavailable: Some gateway's lease has not run out.
    """
    now = db.now()
    living = db.execute(
        "SELECT gateway, lease_until FROM lives WHERE state = 'live' AND lease_until > ? "
        "ORDER BY gateway",
        (now,),
    )
    if living:
        names = ", ".join(sorted({str(name) for name, _ in living}))
        left = max(float(until) for _, until in living) - now
        raise LedgerUnavailable(
            f"the ledger has the tables of an older helexa, and gateways that serve from it: "
            f"{names}. Stop them first; those that were killed count for {left:.0f} s yet"
        )


def begin(db: Database, gateway: str, epoch: int, lease_s: float) -> Life:
    """A new life."""
    until = db.now() + lease_s
    found = db.execute(
        "INSERT INTO lives (life, gateway, epoch, state, lease_until, keeper, kept_until) "
        "SELECT COALESCE(MAX(life), 0) + 1, ?, CAST(? AS BIGINT), 'live', "
        "CAST(? AS DOUBLE PRECISION), COALESCE(MAX(life), 0) + 1, CAST(? AS DOUBLE PRECISION) "
        "FROM lives RETURNING life",
        (gateway, epoch, until, until),
    )
    return Life(int(found[0][0]), gateway, epoch, until)


def renew(db: Database, life: int, lease_s: float) -> bool:
    """Renew the leases of a life and of those that it keeps; False if it is another's by now."""
    until = db.now() + lease_s
    db.execute("UPDATE lives SET kept_until = ? WHERE keeper = ? AND state = 'live'", (until, life))
    return bool(
        db.execute(
            "UPDATE lives SET lease_until = ? WHERE life = ? AND keeper = ? AND state = 'live' "
            "RETURNING life",
            (until, life, life),
        )
    )


def adopt(
    db: Database,
    life: int,
    gateway: str | None,
    lease_s: float,
    *,
    alone: bool,
    grace_s: float | None,
) -> list[Life]:
    """Become the keeper of lives that have none; all that this life keeps beside itself.

    Args:
        gateway: Our name if nobody else may have it: earlier lives of it are dead.
        alone: No other gateway uses this ledger: all other lives are dead.
        grace_s: How long after its lease another gateway's life is left alone; None: always.
    """
    now = db.now()
    before = 0.0 if grace_s is None else now - grace_s
    db.execute(
        "UPDATE lives SET keeper = ?, kept_until = ? WHERE state = 'live' AND life <> ? "
        "AND keeper <> ? AND (kept_until < ? OR CAST(? AS BIGINT) = 1 "
        "OR (gateway = ? AND keeper = life))",
        (life, now + lease_s, life, life, before, int(alone), gateway or ""),
    )
    return [
        Life(int(row[0]), row[1], int(row[2]), float(row[3]))
        for row in db.execute(
            "SELECT life, gateway, epoch, lease_until FROM lives "
            "WHERE keeper = ? AND life <> ? AND state = 'live' ORDER BY life",
            (life, life),
        )
    ]


def states(db: Database, gateways: Collection[str]) -> dict[tuple[str, int], LifeState]:
    """What became of every epoch of these gateways."""
    found: dict[tuple[str, int], LifeState] = {}
    for name in gateways:
        for epoch, state, own in db.execute(
            "SELECT epoch, state, CASE WHEN keeper = life THEN 1 ELSE 0 END FROM lives "
            "WHERE gateway = ?",
            (name,),
        ):
            found[name, int(epoch)] = "ended" if state == "ended" else "live" if own else "kept"
    return found


def eldest(db: Database) -> int | None:
    """Of the lives that keep themselves, the first."""
    found = db.execute("SELECT MIN(life) FROM lives WHERE state = 'live' AND keeper = life")[0][0]
    return None if found is None else int(found)


def settled_at(db: Database, request_ids: Sequence[str]) -> dict[RequestKey, int | None]:
    """By attempt, what requests were settled at without a record; None of those that had one, or
    were discarded."""
    found: dict[RequestKey, int | None] = {}
    for first in range(0, len(request_ids), _MOST):
        part = request_ids[first : first + _MOST]
        marks = ",".join("?" * len(part))
        for request_id, attempt, state, tokens in db.execute(
            "SELECT request_id, attempt, state, prompt + completion FROM requests "  # noqa: S608  # only ``?``
            f"WHERE request_id IN ({marks})",
            part,
        ):
            found[request_id, int(attempt)] = int(tokens) if state == "expired" else None
    return found


def settle_dead(db: Database, keeper: int, dead: int, line: Line) -> Line | None:
    """Settle one request of a dead life, once; as it was billed, None if it had been settled.

    What the life's blocks do not hold is not billed (it always is held, unless a node reports
    beyond its grants).
    """
    _guard(db, keeper, dead)
    paying = [scope for scope in line.scopes if line.granted is not None]
    line = _affordable(db, dead, line, paying)
    if not db.execute(
        f"{INSERT} VALUES ({','.join('?' * len(line))}) {ONCE} RETURNING attempt",
        line,
    ):
        return None
    if line.total:
        spend(db, sums_of([line]), line.at)
        for scope in paying:
            db.execute(
                "UPDATE blocks SET tokens = tokens - ? WHERE scope = ? AND life = ?",
                (line.total, scope, dead),
            )
    return line


def _affordable(db: Database, dead: int, line: Line, paying: list[str]) -> Line:
    """The line, cut to what the dead life's blocks hold. A scope without caps has no block."""
    left = line.total
    for scope in paying:
        held = db.execute("SELECT tokens FROM blocks WHERE scope = ? AND life = ?", (scope, dead))
        if held:
            left = min(left, max(0, int(held[0][0])))
    if left >= line.total:
        return line
    prompt = min(line.prompt, left)
    over = line.overrun + line.total - left
    return line._replace(prompt=prompt, completion=left - prompt, overrun=over)


def end(db: Database, keeper: int, life: int, at: int, *, away: bool) -> int:
    """Close a life: give back its blocks, and settle what has no record.

    Args:
        away: A node that may know better has stayed away past the lease: what is still open is
            settled at the last count heard of. Otherwise no node knows of it, and it costs
            nothing.

    Returns:
        Tokens that were settled at an estimate.
    """
    _guard(db, keeper, life)
    estimated = 0
    for row in db.execute(
        "SELECT request_id, attempt, account_id, key_id, node, model, granted, used "
        "FROM requests WHERE life = ? AND state = 'open'",
        (life,),
    ):
        request_id, attempt, account, key, node, model, granted, used = row
        line = Line(request_id, attempt, life, "expired", at, account, key, node, model, granted)
        spent = min(used, granted) if away else 0
        line = line._replace(used=used, prompt=spent, estimated=1)
        settled = settle_dead(db, keeper, life, line)
        estimated += settled.total if settled is not None else 0
    db.execute("DELETE FROM blocks WHERE life = ?", (life,))
    db.execute("UPDATE lives SET state = 'ended' WHERE life = ?", (life,))
    return estimated


def _guard(db: Database, keeper: int, life: int) -> None:
    """Go on only as the keeper of a life that has not ended.

    Raises:
        Fenced: Somebody else is.
    """
    if not db.execute(
        "UPDATE lives SET batch = batch + 1 WHERE life = ? AND keeper = ? AND state = 'live' "
        "RETURNING life",
        (life, keeper),
    ):
        raise Fenced(f"life {life} is not ours to settle")
