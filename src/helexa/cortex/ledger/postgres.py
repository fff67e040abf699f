"""PostgreSQL: the ledger of several gateways. Needs the extra ``helexa[postgres]``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from helexa.core.settings import SettingsError
from helexa.cortex.ledger.database import (
    NO_DRIVER,
    Conflict,
    Dialect,
    LedgerUnavailable,
    Row,
    masked,
)

if TYPE_CHECKING:
    import psycopg

CONNECT_S = 5
FROZEN_S = 10.0
"""A transaction in which its gateway has said nothing for so long is undone by the server: a
machine that stood still or vanished in the middle of one would keep every other gateway waiting."""

LOCKED_S: Final = 10.0
"""Whoever locks a table or stands in the middle of a write may keep us waiting for so long."""

_DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": CONNECT_S,
    "application_name": "helexa",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Where the url says nothing. A server whose machine or network is gone, as in a failover, is
silent: libpq waits for it for a quarter of an hour, or two hours if nothing was on its way to it.
Seconds; the last in milliseconds."""

_CHANNEL = "helexa_ledger"
_WRITERS = 7_310_001  # any number: whoever writes a ledger holds it
_BEGIN = (
    "SELECT set_config('idle_in_transaction_session_timeout', ?, true), pg_advisory_xact_lock(?)"
)

_UNBOUND = (
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE source <> 'client' AND name IN "
    "('statement_timeout', 'transaction_timeout', 'idle_session_timeout')"
)
"""Bounds that a server sets for everybody, unless the url asks for them: a backlog that takes
longer would never be written, however often it is tried."""


class PostgresDatabase:
    """A connection that is made anew after it broke.

    Args:
        url: As libpq reads it; parameters such as ``sslmode`` go in its query.

    Raises:
        SettingsError: The driver is not installed, or the url cannot be read.
        LedgerUnavailable: The server does not let us in.
    """

    dialect: Dialect = "postgres"
    shared = True

    def __init__(self, url: str) -> None:
        try:
            import psycopg  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise SettingsError(NO_DRIVER) from error
        self._driver = psycopg
        self._url = url
        self._shown = masked(url)
        self._texts: dict[str, bytes] = {}
        self._connection: psycopg.Connection[Row] | None = None
        self._listening: psycopg.Connection[Row] | None = None
        self._names: dict[str, bool] = {}  # that we have held, and whether we do
        self._open()

    def execute(self, sql: str, params: Sequence[object] = ()) -> list[Row]:
        """See ``Database.execute``."""
        text = self._texts.get(sql)
        if text is None:
            text = self._texts[sql] = sql.replace("%", "%%").replace("?", "%s").encode()
        with self._foreign_errors():
            found = self._open().execute(text, params)
            return found.fetchall() if found.description else []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Database.transaction``."""
        used = self._connection
        if used is not None and used.closed:
            used = None
        try:
            inside = self._begin()
        except LedgerUnavailable:
            if used is None or not used.closed:
                raise
            # It had been closed behind our back, by a restart or for being idle, and nothing was
            # done yet: nobody need hear of it.
            inside = self._begin()
        try:
            yield
        except BaseException as error:
            self._leave(inside, error)
            raise
        with self._foreign_errors():
            inside.__exit__(None, None, None)

    def _begin(self) -> AbstractContextManager[object]:
        with self._foreign_errors():
            inside = self._open().transaction()
            inside.__enter__()
        try:
            # As SQLite's: writers follow one another, so what a statement sees is the truth.
            self.execute(_BEGIN, (f"{FROZEN_S * 1000:.0f}", _WRITERS))
        except BaseException as error:
            self._leave(inside, error)
            raise
        return inside

    def _leave(self, inside: AbstractContextManager[object], error: BaseException) -> None:
        with suppress(self._driver.Error):  # a broken connection rolls back by itself
            inside.__exit__(type(error), error, error.__traceback__)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See ``Database.snapshot``."""
        with self._foreign_errors():
            inside = self._open().transaction(force_rollback=True)
            inside.__enter__()
        try:
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
        finally:
            with suppress(self._driver.Error):
                inside.__exit__(None, None, None)

    def notify(self, text: str) -> None:
        """See ``Database.notify``."""
        self.execute("SELECT pg_notify(?, ?)", (_CHANNEL, text))

    def notified(self, wait_s: float) -> list[str]:
        """See ``Database.notified``."""
        with self._foreign_errors():
            connection = self._open()
            if connection is not self._listening:
                connection.execute(f"LISTEN {_CHANNEL}")
                self._listening = connection
            return [n.payload for n in connection.notifies(timeout=wait_s, stop_after=1)]

    def now(self) -> float:
        """See ``Database.now``."""
        return float(self.execute("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    def moved(self) -> bool:
        """See ``Database.moved``: a server looks after its own files."""
        return False

    def mend(self) -> str | None:
        """See ``Database.mend``."""
        return None

    def hold(self, name: str) -> bool:
        """See ``Database.hold``."""
        with self._foreign_errors():
            held = _try_to_hold(self._open(), name)
        if held:
            self._names[name] = True
        return held

    def holds(self, name: str) -> bool:
        """See ``Database.holds``."""
        self._open()
        if self._names.get(name) is False:  # the server may have been slow to miss our old one
            self.hold(name)
        return self._names.get(name, False)

    def give_up(self) -> None:
        """See ``Database.give_up``."""
        connection = self._connection
        with suppress(OSError, self._driver.Error):
            if connection is not None:
                with socket.socket(fileno=os.dup(connection.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See ``Database.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection[Row]:
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        with self._foreign_errors():
            given = self._driver.conninfo.conninfo_to_dict(self._url)
            ours = {name: value for name, value in _DEFAULTS.items() if name not in given}
            connection = self._driver.connect(
                self._driver.conninfo.make_conninfo(self._url, **ours), autocommit=True
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return connection

    def _prepare(self, connection: psycopg.Connection[Row]) -> None:
        """What holds for as long as a connection lasts."""
        # A snapshot is made before the lock that writers follow one another by is waited for:
        # with a stricter default of the server, what a statement sees would be older than that.
        connection.isolation_level = self._driver.IsolationLevel.READ_COMMITTED
        connection.execute(
            "SELECT set_config('lock_timeout', %s, false)", (f"{LOCKED_S * 1000:.0f}",)
        )
        connection.execute(_UNBOUND)
        for name in self._names:
            self._names[name] = _try_to_hold(connection, name)

    @contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except self._driver.IntegrityError as error:
            raise Conflict(str(error)) from error
        except self._driver.errors.ReadOnlySqlTransaction as error:
            # A failover has made this server the standby; the url may lead to the other by now.
            self.close()
            raise LedgerUnavailable(f"the ledger {self._shown} cannot be used: {error}") from error
        except self._driver.ProgrammingError as error:
            if self._connection is None:
                raise SettingsError(f"ledger.url: {self._shown!r}: {error}") from error
            raise LedgerUnavailable(f"the ledger {self._shown} cannot be used: {error}") from error
        except self._driver.Error as error:
            what = str(error).strip() or type(error).__name__
            raise LedgerUnavailable(f"the ledger {self._shown} cannot be used: {what}") from error


def _try_to_hold(connection: psycopg.Connection[Row], name: str) -> bool:
    found = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (name,)).fetchone()
    return found is not None and bool(found[0])
