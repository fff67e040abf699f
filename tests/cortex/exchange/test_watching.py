"""What whoever watches a gateway is told while its ledger cannot be written."""

from __future__ import annotations

import os
import shutil

import pytest
from tests.cortex.exchange.rig import answers, fleet
from tests.cortex.exchange.test_settling import SK_A, capped
from tests.relay.rig import until

from helexa.cortex.ledger.database import sqlite_path

pytestmark = pytest.mark.anyio


async def test_it_is_said_everywhere_and_what_is_answered_meanwhile_is_booked_later() -> None:
    async with fleet(answers, config=capped(5000, lease_secs=1)) as (gateway, _):
        await gateway.ask(**SK_A)
        await gateway.settled()
        await gateway.rooms.ledger.written()
        assert (await gateway.get("/health"))["ledger"] == {"ok": True}
        assert gateway.metric("cortex_ledger_writable") == 1
        store = gateway.rooms.kept.store
        assert store is not None
        file = sqlite_path(store._url)
        os.rename(file, f"{file}.aside")  # noqa: PTH104
        shutil.copy(f"{file}.aside", file)
        await until(lambda: not gateway.rooms.kept.condition().ok)
        health = await gateway.get("/health")
        assert (health["status"], health["ledger"]["ok"]) == ("degraded", False)
        assert file not in str(health)
        told = (await gateway.get("/admin/fleet"))["ledger"]
        assert "was replaced" in told["why"]
        assert gateway.metric("cortex_ledger_writable") == 0
        assert (await gateway.ask(**SK_A)).status == 200
        gateway.front.app.flush()
        assert gateway.metric("cortex_ledger_unwritten_requests") == 1
        assert (await gateway.get("/ready")) == {"ready": True}
        os.rename(f"{file}.aside", file)  # noqa: PTH104
        await until(lambda: gateway.rooms.kept.condition().ok)
        assert gateway.metric("cortex_ledger_unwritten_requests") == 0
        assert (await gateway.get("/health"))["status"] == "ok"
