"""Two gateway processes on one PostgreSQL: what one changes holds at the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.neuron.system.conftest import until
from tests.system.rig import CortexProcess

CONFIG = """
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
"""


@pytest.fixture
def pair(tmp_path: Path, postgres_url: str) -> Iterator[tuple[CortexProcess, CortexProcess]]:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = f'[ledger]\nurl = "{postgres_url}"\n{CONFIG}'
        made.append(CortexProcess(tmp_path / name, config).start())
    yield made[0], made[1]
    for cortex in made:
        cortex.stop()


def status(cortex: CortexProcess, secret: str) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.get(f"{cortex.url}/v1/models", headers=headers, timeout=60).status_code


def test_a_key_that_one_gateway_makes_rotates_and_revokes_is_so_at_the_other(
    pair: tuple[CortexProcess, CortexProcess],
) -> None:
    here, there = pair
    with httpx.Client(base_url=here.url, headers={"x-api-key": "sk-root"}, timeout=60) as admin:
        took = []

        def change(path: str, body: object = None) -> str:
            secret = admin.post(path, json=body or {}).json().get("secret", "")
            took.append(time.monotonic())
            return str(secret)

        def follows(secret: str, expected: int) -> None:
            assert status(here, secret) == expected  # at once
            until(lambda: status(there, secret) == expected)
            took[-1] = time.monotonic() - took[-1]

        first = change("/admin/keys", {"account_id": "acme", "key_id": "shared"})
        follows(first, 200)
        second = change("/admin/keys/shared/rotate")
        follows(first, 401)
        assert status(there, second) == 200
        change("/admin/keys/shared/revoke")
        follows(second, 401)
        while min(took) >= 1 and len(took) < 12:  # a second is the promise, of a quiet machine
            follows(change("/admin/keys", {"account_id": "acme", "key_id": f"k{len(took)}"}), 200)
    assert min(took) < 1
