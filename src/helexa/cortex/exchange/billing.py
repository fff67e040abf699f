"""What an attempt is billed when it has ended: decided by its end, told to the settler.

::

    never sent ─────────────────────────────────▶ withdrawn: no node has heard of it
    its usage was seen, and relayed ────────────▶ that
    a client that left, a stream that broke ────▶ by its node's record
    no byte relayed: refused by its node ───────▶ nothing, as its record says
                     lost, timed out, our fault ▶ nothing, and its record is thrown away

Only what was relayed is billed. So a request may have a few attempts that cost nothing, and at
most one, the last, that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from helexa.core.usage import Usage
from helexa.relay.attempt import Attempt

if TYPE_CHECKING:
    from helexa.cortex.exchange.desk import Outcome
    from helexa.cortex.exchange.exchange import Exchange

Bill = Literal["withdrawn", "by record", "nothing", "discarded"]


def bill(outcome: Outcome, *, sent: bool, refused: bool) -> Bill:
    """How an attempt is settled whose usage was not seen, or not relayed.

    Args:
        sent: It has left for its node.
        refused: Its node has said no, so there is nothing on its record.
    """
    if not sent:
        return "withdrawn"
    if outcome != "failed":
        return "by record"
    return "nothing" if refused else "discarded"


def was_refused(attempt: Attempt) -> bool:
    """Whether its node has answered it, with a refusal."""
    return attempt.failure is None and attempt.status not in (0, 200)


def settle(exchange: Exchange) -> None:
    """Settle the last attempt of an exchange that has ended."""
    if not exchange.attempts or exchange.route.free:
        return
    settler, placed, usage = exchange.desk.settler, exchange.placed, exchange.usage
    request_id, number = exchange.request_id, exchange.attempts
    if placed is None:
        settler.withdraw(request_id, number)
    elif usage is not None and exchange.sent:
        settled = settler.settle(placed.node, request_id, number, usage, exchange.model)
        if settled is not None:
            exchange.desk.metrics.spent(settled)
    else:
        how = bill(exchange.outcome, sent=exchange.sent, refused=exchange.refused)
        _apply(exchange, placed.node, how)


def settle_tried(exchange: Exchange, node: str, attempt: Attempt) -> None:
    """Settle an attempt that another one follows: nothing of it was relayed."""
    if not exchange.route.free:
        sent, refused = attempt.connected_at > 0, was_refused(attempt)
        _apply(exchange, node, bill("failed", sent=sent, refused=refused))


def _apply(exchange: Exchange, node: str, how: Bill) -> None:
    settler, request_id, number = exchange.desk.settler, exchange.request_id, exchange.attempts
    if how == "withdrawn":
        settler.withdraw(request_id, number)
    elif how == "by record":
        settler.settle_later(node, request_id, number)
    elif how == "nothing":
        settler.settle(node, request_id, number, Usage())
    else:
        settler.discard(node, request_id, number, exchange.model)
