"""How a ledger does, for whoever watches the gateway."""

from __future__ import annotations

import msgspec


class Condition(msgspec.Struct, frozen=True):
    """Whether what is settled can be written down, and what follows.

    Args:
        ok: It is written as it comes.
        why: What keeps it from being written; for operators, since it may name a server.
        for_s: How long that has gone on.
        unwritten: Requests that are settled and wait to be written.
        granting: Keys with caps may be granted what we hold. Where gateways share a ledger they
            may not once others may have been given it.
        full: Nobody is served, capped or not: more waits to be written than would be known of
            should we die.
    """

    ok: bool = True
    why: str | None = None
    for_s: float = 0.0
    unwritten: int = 0
    granting: bool = True
    full: bool = False
