"""Records as tests want them."""

from __future__ import annotations

from helexa.core.fleet import RecordState, RequestRecord


def record(
    request_id: str = "req_a",
    attempt: int = 1,
    *,
    gateway: str = "gw",
    state: RecordState = "queued",
    model: str = "org/model",
    **counts: int,
) -> RequestRecord:
    return RequestRecord(
        request_id=request_id, attempt=attempt, gateway=gateway, epoch=7, model=model,
        state=state, account_id="acme", key_id="key", **counts,
    )  # fmt: skip
