"""Reports of what was used: sums with prices, as JSON or CSV; and the end of old rows.

Prices are those of the catalogue now. A model without prices is unpriced, which is not the same
as free: its tokens are told apart and never counted as a cost of 0.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec

from helexa.core.logging import Logger
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.usage import (
    DAY_MS,
    RequestRow,
    Sums,
    UsageQuery,
    archive,
    requests,
    sums,
)
from helexa.cortex.profiles import Cost, Profiles

T = TypeVar("T")

PER: Final = 1_000_000
"""Prices are for so many tokens."""

EVERY_S: Final = 3600.0
BATCH: Final = 2000


class Access(Protocol):
    """The ledger's threads."""

    async def report(self, work: Callable[[Database], T]) -> T: ...

    async def write(self, work: Callable[[Database], T]) -> T: ...


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Sums and what they cost.

    Args:
        cost_usd: Of the tokens that have a price; None when none has.
        unpriced_tokens: Of models without prices.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float | None = None
    unpriced_tokens: int = 0


class UsageRow(Used, frozen=True, kw_only=True, omit_defaults=False):
    """One row of a report; a dimension that was not asked for is unset."""

    day: str | msgspec.UnsetType = msgspec.UNSET
    account: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    node: str | msgspec.UnsetType = msgspec.UNSET


class Report(msgspec.Struct, frozen=True):
    """``GET /admin/usage``; ``since`` and ``until`` in epoch seconds."""

    group_by: tuple[str, ...]
    since: float | None
    until: float | None
    rows: tuple[UsageRow, ...]
    total: Used


class _Tally:
    """Sums of one row while they are added up."""

    __slots__ = ("cost", "sums", "unpriced")

    def __init__(self) -> None:
        self.sums = Sums()
        self.cost: float | None = None
        self.unpriced = 0

    def add(self, more: Sums, price: Cost | None) -> None:
        self.sums = self.sums.plus(*more)
        if price is None:
            self.unpriced += more.total
        else:
            self.cost = (self.cost or 0.0) + cost(more, price)

    def figures(self) -> dict[str, Any]:
        used = self.sums
        return {
            "requests": used.requests,
            "prompt_tokens": used.prompt,
            "cached_tokens": used.cached,
            "completion_tokens": used.completion,
            "reasoning_tokens": used.reasoning,
            "total_tokens": used.total,
            "cost_usd": None if self.cost is None else round(self.cost, 6),
            "unpriced_tokens": self.unpriced,
        }


def cost(used: Sums, price: Cost) -> float:
    """USD; what was read from the cache at its own price, or as any prompt if it has none."""
    cached = min(used.cached, used.prompt)
    read = price.input if price.cache_read is None else price.cache_read
    dollars = (used.prompt - cached) * price.input + cached * read + used.completion * price.output
    return dollars / PER


def report(
    found: Iterable[tuple[dict[str, object], Sums]], query: UsageQuery, profiles: Profiles
) -> Report:
    """Rows by the dimensions asked for: by day as time goes, else the largest first."""
    prices = {profile.id: profile.cost for profile in profiles.models}
    tallies: dict[tuple[object, ...], _Tally] = {}
    total = _Tally()
    for values, figures in found:
        price = prices.get(str(values["model"]))
        at = tuple(values[name] for name in query.group_by)
        tallies.setdefault(at, _Tally()).add(figures, price)
        total.add(figures, price)
    rows = sorted(tallies.items(), key=lambda item: _order(item[0], item[1], query))
    return Report(
        query.group_by,
        None if query.since is None else query.since / 1000,
        None if query.until is None else query.until / 1000,
        tuple(UsageRow(**_labels(query, at), **tally.figures()) for at, tally in rows),
        Used(**total.figures()),
    )


def _order(at: tuple[object, ...], tally: _Tally, query: UsageQuery) -> tuple[object, ...]:
    days = [value for name, value in zip(query.group_by, at, strict=True) if name == "day"]
    return (*days, -tally.sums.total, *(str(value) for value in at))


def _labels(query: UsageQuery, at: tuple[object, ...]) -> dict[str, Any]:
    return {
        name: day_of(int(str(value))) if name == "day" else str(value)
        for name, value in zip(query.group_by, at, strict=True)
    }


def day_of(day: int) -> str:
    """A day since the epoch as a date."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()


def as_csv(heads: Iterable[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """Rows as CSV with a header; None is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(heads), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


class UsageBook:
    """Reports for administrators; what takes long runs in the ledger's reading thread.

    Args:
        profiles: The catalogue as it is now.
    """

    def __init__(self, access: Access, profiles: Callable[[], Profiles]) -> None:
        self._access = access
        self._profiles = profiles

    async def report(self, query: UsageQuery, form: str) -> bytes:
        """The sums as ``json`` or ``csv``.

        Raises:
            ServiceUnavailable: The ledger cannot be read just now.
        """
        profiles = self._profiles()

        def work(db: Database) -> bytes:
            made = report(sums(db, query), query, profiles)
            if form == "json":
                return msgspec.json.encode(made)
            heads = [*query.group_by, *Used.__struct_fields__]
            return as_csv(heads, [msgspec.to_builtins(row) for row in made.rows])

        return await self._access.report(work)

    async def requests(self, query: UsageQuery, form: str, most: int) -> bytes:
        """The newest requests one by one; raises as ``report``."""

        def work(db: Database) -> bytes:
            rows = requests(db, query, most)
            if form == "json":
                return msgspec.json.encode({"requests": rows})
            plain = [{**msgspec.to_builtins(row), "at": _stamp(row.at)} for row in rows]
            return as_csv(RequestRow.__struct_fields__, plain)

        return await self._access.report(work)


def _stamp(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")


async def keep_for(access: Access, days: int, now: Callable[[], float], log: Logger) -> None:
    """Sum up requests older than ``days``, now and every hour, until cancelled; 0 keeps all."""
    while days:
        try:
            await sum_up(access, int(now() * 1000) - days * DAY_MS)
        except Exception as error:  # noqa: BLE001  # an hour later is early enough
            log.warning("old usage could not be summed up", reason=str(error))
        await asyncio.sleep(EVERY_S)


async def sum_up(access: Access, before: int) -> None:
    """Sum up what was settled before ``before``, in batches: the writer has others to serve."""
    done = BATCH
    while done >= BATCH:
        done = await access.write(lambda db: archive(db, before, BATCH))
