"""Reports of usage for administrators, as JSON and CSV."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from helexa.core.errors import InvalidRequestBody
from helexa.cortex.ledger.usage import DIMENSIONS, Dimension, UsageQuery
from helexa.cortex.routes.respond import number, only
from helexa.cortex.usage import UsageBook

Handler = Callable[[Request], Awaitable[Response]]

MOST_ROWS: Final = 100_000
LATEST_MS: Final = 253_402_300_800_000
"""The end of the year 9999: beyond it is no date, and in the end no number that a ledger holds."""
_KNOWN: Final = (
    "group_by", "since", "until", "account", "key", "model", "node", "format", "limit"
)  # fmt: skip
_TYPES: Final = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


class UsageRoutes:
    """Handlers over the reports."""

    def __init__(self, book: UsageBook) -> None:
        self._book = book

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            ("GET", "/admin/usage", self.report),
            ("GET", "/admin/usage/requests", self.requests),
        ]

    async def report(self, request: Request) -> Response:
        query, form = _query(request), _form(request)
        return _file(await self._book.report(query, form), form, "usage")

    async def requests(self, request: Request) -> Response:
        query, form = _query(request), _form(request)
        most = number(request, "limit", 1000, MOST_ROWS)
        return _file(await self._book.requests(query, form, most), form, "requests")


def _query(request: Request) -> UsageQuery:
    """The query's parameters.

    Raises:
        InvalidRequestBody: One is unknown or cannot be read.
    """
    only(request, *_KNOWN)
    asked = request.query_params
    return UsageQuery(
        group_by=_dimensions(asked.get("group_by", "key")),
        since=_millis(asked.get("since"), "since"),
        until=_millis(asked.get("until"), "until"),
        account=asked.get("account"),
        key=asked.get("key"),
        model=asked.get("model"),
        node=asked.get("node"),
    )


def _dimensions(text: str) -> tuple[Dimension, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not all(name in DIMENSIONS for name in names):
        raise InvalidRequestBody(
            f"group_by must be some of {', '.join(DIMENSIONS)}, with commas between them.",
            param="group_by",
        )
    return cast("tuple[Dimension, ...]", names)


def _millis(text: str | None, name: str) -> int | None:
    """Epoch seconds or an ISO date as epoch milliseconds; a date without a zone is UTC."""
    if text is None:
        return None
    try:
        if text.replace(".", "", 1).isdigit():
            millis = int(float(text) * 1000)
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
            millis = int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        millis = LATEST_MS
    if millis >= LATEST_MS:
        raise InvalidRequestBody(
            f"{name} must be a date such as 2027-01-31, or epoch seconds.", param=name
        )
    return millis


def _form(request: Request) -> str:
    form = request.query_params.get("format", "json")
    if form not in _TYPES:
        raise InvalidRequestBody("format must be json or csv.", param="format")
    return form


def _file(body: bytes, form: str, name: str) -> Response:
    headers = {"cache-control": "no-store"}
    if form != "json":
        headers["content-disposition"] = f'attachment; filename="{name}.{form}"'
    return Response(body, media_type=_TYPES[form], headers=headers)
