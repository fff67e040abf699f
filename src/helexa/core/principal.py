"""Who asks, and what they may do."""

from __future__ import annotations

from typing import Literal

import msgspec


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a cap renews: ``balance`` never, ``rolling`` over the last ``seconds``.

    Args:
        kind: ``balance`` or ``rolling``.
        seconds: Length of a rolling window.
    """

    kind: Literal["balance", "rolling"] = "balance"
    seconds: int | None = None


class Cap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most ``tokens`` tokens within ``window``.

    Args:
        tokens: Prompt and completion together.
    """

    tokens: int
    window: Window = Window()


class Principal(msgspec.Struct, frozen=True):
    """An authenticated key, or the anonymous one.

    Args:
        account_id: Who is billed.
        key_id: Public name of the key (metric label, log field).
        caps: The key's own caps.
        account_caps: Caps that all keys of the account share; the tightest of all binds.
        models: Concrete ids or aliases it may use; empty means all.
        max_concurrent: Open requests at once; None means unbounded.
    """

    account_id: str
    key_id: str
    caps: tuple[Cap, ...] = ()
    account_caps: tuple[Cap, ...] = ()
    admin: bool = False
    anonymous: bool = False
    models: tuple[str, ...] = ()
    may_load: bool = True
    priority: int | None = None
    expires: float | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None

    @property
    def capped(self) -> bool:
        """Whether anything bounds what the key may spend."""
        return bool(self.caps or self.account_caps)


ANONYMOUS = Principal(account_id="anonymous", key_id="anonymous", anonymous=True)
