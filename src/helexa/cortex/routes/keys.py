"""Administration of keys and accounts.

A secret is in exactly one answer, the one that made it, and that answer may not be cached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from helexa.core.errors import InvalidRequestBody
from helexa.core.principal import Cap
from helexa.core.settings import Secret
from helexa.cortex.entitlements import CapMembers, KeyMembers, cap_problem
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.keys.views import STATES, KeyView
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.ledger.keys import KeyRights
from helexa.cortex.routes.respond import body_as, missing, only, reply, reply_list

Note = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*$")]
"""What a ledger can hold: PostgreSQL has no text with a NUL in it."""
Handler = Callable[[Request], Awaitable[Response]]

MOST_GRACE_S = 30 * 86_400.0


class KeyOrder(KeyMembers, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /admin/keys``: the members of ``[[entitlements.keys]]`` without a secret."""

    account_id: str
    key_id: str | None = None
    note: Note = ""


_CHANGED = {field.name: field.type for field in msgspec.structs.fields(KeyMembers)}
_CHANGED = {name: _CHANGED[name] for name in KeyRights.__struct_fields__} | {"note": Note}

ChangeOrder = msgspec.defstruct(
    "ChangeOrder",
    [(name, kind | msgspec.UnsetType, msgspec.UNSET) for name, kind in _CHANGED.items()],
    frozen=True,
    forbid_unknown_fields=True,
)
"""``POST /admin/keys/{id}``: what is absent stays as it is; null lifts a limit."""


class RotateOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /admin/keys/{id}/rotate``: how long the old secret still counts (seconds)."""

    grace_secs: Annotated[float, msgspec.Meta(ge=0, le=MOST_GRACE_S)] = 0.0


class AccountOrder(CapMembers, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /admin/accounts``: caps that all keys of the account share; none lifts them."""

    account_id: str


class KeyRoutes:
    """Handlers over the keyring.

    Args:
        ledger: Knows what keys have spent; None where there is no gateway.
    """

    def __init__(self, keyring: Keyring, ledger: Ledger | None) -> None:
        self._keyring = keyring
        self._ledger = ledger

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            ("GET", "/admin/keys", self.keys),
            ("POST", "/admin/keys", self.create),
            ("GET", "/admin/keys/{key_id}", self.key),
            ("POST", "/admin/keys/{key_id}", self.change),
            ("POST", "/admin/keys/{key_id}/rotate", self.rotate),
            ("POST", "/admin/keys/{key_id}/revoke", self.revoke),
            ("GET", "/admin/accounts", self.accounts),
            ("POST", "/admin/accounts", self.put_account),
        ]

    async def keys(self, request: Request) -> Response:
        only(request, "account", "state")
        asked = request.query_params
        account, state = asked.get("account"), asked.get("state")
        if state is not None and state not in STATES:
            raise InvalidRequestBody(f"state must be {' or '.join(STATES)}.", param="state")
        found = (
            key
            for key in self._keyring.views()
            if account in (None, key.account_id) and state in (None, key.state)
        )
        return await reply_list("keys", found)

    async def key(self, request: Request) -> Response:
        found = self._keyring.find(request.path_params["key_id"])
        return _no_key(request) if found is None else reply(await self._shown(found))

    async def create(self, request: Request) -> Response:
        order = await body_as(request, KeyOrder)
        members = {name: getattr(order, name) for name in KeyRights.__struct_fields__}
        rights = _rights(members | {"caps": order.all_caps})
        made = await self._keyring.create(order.account_id, order.key_id, rights, order.note)
        return await self._with_secret(*made, status=201)

    async def change(self, request: Request) -> Response:
        order = await body_as(request, ChangeOrder)
        found = self._keyring.find(request.path_params["key_id"])
        if found is None:
            return _no_key(request)
        given = {
            name: value for name in _CHANGED if (value := getattr(order, name)) is not msgspec.UNSET
        }
        note = str(given.pop("note", found.note))
        kept = {name: getattr(found, name) for name in KeyRights.__struct_fields__}
        changed = await self._keyring.change(found.key_id, _rights(kept | given), note)
        return reply(await self._shown(changed))

    async def rotate(self, request: Request) -> Response:
        order = await body_as(request, RotateOrder)
        found = self._keyring.find(request.path_params["key_id"])
        if found is None:
            return _no_key(request)
        made = await self._keyring.rotate(found.key_id, order.grace_secs)
        return await self._with_secret(*made)

    async def revoke(self, request: Request) -> Response:
        found = self._keyring.find(request.path_params["key_id"])
        if found is None:
            return _no_key(request)
        return reply(await self._shown(await self._keyring.revoke(found.key_id)))

    async def accounts(self, _request: Request) -> Response:
        return await reply_list("accounts", self._keyring.accounts())

    async def put_account(self, request: Request) -> Response:
        order = await body_as(request, AccountOrder)
        return reply(await self._keyring.put_account(order.account_id, _meant(order.all_caps)))

    async def _shown(self, key: KeyView) -> dict[str, object]:
        principal = self._keyring.principal(key.key_id)
        shown: dict[str, object] = msgspec.to_builtins(key)
        if principal is not None and self._ledger is not None:
            await self._ledger.learn([principal])
            shown["usage"] = self._ledger.usage(principal)
        return shown

    async def _with_secret(self, key: KeyView, secret: Secret, status: int = 200) -> Response:
        response = reply({**await self._shown(key), "secret": secret.reveal()}, status)
        response.headers["cache-control"] = "no-store"
        return response


def _rights(members: dict[str, Any]) -> KeyRights:
    """What is kept of a key's members.

    Raises:
        InvalidRequestBody: As ``_meant``.
    """
    known = {"caps": _meant(members["caps"]), "expires": _epoch(members["expires"])}
    return KeyRights(**(members | known))


def _meant(caps: tuple[Cap, ...]) -> tuple[Cap, ...]:
    """The same caps.

    Raises:
        InvalidRequestBody: Nobody can mean one of them.
    """
    for cap in caps:
        problem = cap_problem(cap)
        if problem is not None:
            raise InvalidRequestBody(f"{problem[0].upper()}{problem[1:]}.", param="caps")
    return caps


def _epoch(expires: datetime | float | None) -> float | None:
    if not isinstance(expires, datetime):
        return expires
    return (expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)).timestamp()


def _no_key(request: Request) -> Response:
    name = request.path_params["key_id"]
    return missing(request, f"There is no key called {name[:80]!r}.")
