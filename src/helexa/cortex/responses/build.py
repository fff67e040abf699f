"""Which shelves a gateway's settings mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from helexa.core.logging import Logger
from helexa.cortex.ledger.database import connect, sqlite_path, sqlite_url
from helexa.cortex.responses.base import Shelf
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.responses.memory import MemoryShelf
from helexa.cortex.responses.sql import SqlShelf
from helexa.cortex.settings import ResponsesSettings

_MB = 1024 * 1024
_ANONYMOUS_TTL_S = 3600.0
_FILE = "responses.db"


def make_keeper(
    settings: ResponsesSettings, ledger_url: str, log: Logger, count: Callable[[], None]
) -> Keeper | None:
    """Keeps responses beside the ledger; None where ``store`` is off.

    Args:
        count: Called for each response that could not be kept.
    """
    if not settings.store:
        return None
    max_bytes = settings.max_mb * _MB
    ttl_s = settings.ttl_hours * 3600

    def anonymous() -> Shelf:
        return MemoryShelf(time.time, ttl_s=min(ttl_s, _ANONYMOUS_TTL_S), max_bytes=max_bytes // 4)

    def keys() -> Shelf:
        db = connect(beside(ledger_url))
        return SqlShelf(db, db.now, ttl_s=ttl_s, max_bytes=max_bytes)

    return Keeper(keys, anonymous, log, count)


def beside(ledger_url: str) -> str:
    """The database of responses: a file of its own beside SQLite's, the same PostgreSQL."""
    if urlsplit(ledger_url).scheme != "sqlite":
        return ledger_url
    return sqlite_url(Path(sqlite_path(ledger_url)).with_name(_FILE))
