"""How a key stands: what it has spent, what is held for it, what it may still spend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from helexa.cortex.ledger.base import KeyHolds, KeyUsage, TokenRoom
from helexa.cortex.ledger.grants import OpenGrant
from helexa.cortex.ledger.scope import Account
from helexa.cortex.ledger.window import CapState


def usage_of(account: Account, now: float) -> KeyUsage:
    """Everything, with the tightest cap at the top; as true as what was learnt.

    Args:
        now: Epoch seconds.
    """
    own, who = account.own, account.principal
    windows = tuple(
        cap.usage(now, scope.held + scope.others) for scope in account.scopes for cap in scope.caps
    )
    tightest = min(windows, key=lambda w: w.available_tokens, default=None)
    return KeyUsage(
        account_id=who.account_id,
        key_id=who.key_id,
        hard_cap=None if tightest is None else tightest.hard_cap,
        spent_tokens=own.prompt + own.completion if tightest is None else tightest.spent_tokens,
        open_tokens=0 if tightest is None else tightest.open_tokens,
        available_tokens=None if tightest is None else tightest.available_tokens,
        requests=own.requests,
        prompt_tokens=own.prompt,
        completion_tokens=own.completion,
        window=None if tightest is None else tightest.window,
        resets_at=None if tightest is None else tightest.resets_at,
        windows=windows,
    )


def room_of(account: Account, now: float) -> TokenRoom | None:
    """What the tightest cap leaves; None without one. Asked for every answer, so it is cheap."""
    tightest: CapState | None = None
    least = 0
    for scope in account.scopes:
        held = scope.held + scope.others
        for cap in scope.caps:
            left = cap.limit - cap.spent(now) - held
            if tightest is None or left < least:
                tightest, least = cap, left
    if tightest is None:
        return None
    reset_s = tightest.empty_in(now) if tightest.seconds else None
    return TokenRoom(tightest.limit, max(0, least), reset_s)


def holds_of(accounts: Mapping[str, Account], grants: Iterable[OpenGrant]) -> tuple[KeyHolds, ...]:
    """What open grants hold of each key."""
    number, held = Counter[str](), Counter[str]()
    for row in grants:
        key = row.account.principal.key_id
        number[key] += 1
        held[key] += row.tokens or 0
    return tuple(
        KeyHolds(account.principal.account_id, key, number[key], held[key])
        for key, account in accounts.items()
    )
