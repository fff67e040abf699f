"""Reports: what a token costs, and that unpriced is not free."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helexa.cortex.ledger.usage import Sums, UsageQuery
from helexa.cortex.profiles import Cost, Profile, Profiles
from helexa.cortex.usage import as_csv, cost, day_of, report

PRICED = Profiles(
    models=(
        Profile("dear", "llamacpp", cost=Cost(3.0, 15.0, cache_read=0.3)),
        Profile("plain", "llamacpp", cost=Cost(1.0, 2.0)),
        Profile("free", "llamacpp", cost=Cost(0, 0)),
        Profile("unpriced", "llamacpp"),
    )
)
MILLION = 1_000_000


def made(*found: tuple[dict[str, object], Sums], by: Any = ("key",)) -> Any:
    import msgspec

    return json.loads(msgspec.json.encode(report(found, UsageQuery(by), PRICED)))


def used(model: str, prompt: int, cached: int = 0, completion: int = 0, **at: object) -> Any:
    return ({"model": model, "key": "k", **at}, Sums(1, prompt, cached, completion, 0))


def test_cached_tokens_cost_what_reading_the_cache_costs() -> None:
    sums = Sums(1, 10 * MILLION, 4 * MILLION, 2 * MILLION, 0)
    assert cost(sums, Cost(3.0, 15.0, cache_read=0.3)) == pytest.approx(18 + 1.2 + 30)
    assert cost(sums, Cost(3.0, 15.0)) == pytest.approx(60)
    assert cost(sums, Cost(3.0, 15.0, cache_read=0)) == pytest.approx(48)


def test_free_costs_nothing_and_unpriced_has_no_cost() -> None:
    [row] = made(used("free", 500))["rows"]
    assert (row["cost_usd"], row["unpriced_tokens"]) == (0, 0)
    for model in ("unpriced", "helexa/spark"):
        [row] = made(used(model, 500))["rows"]
        assert (row["cost_usd"], row["unpriced_tokens"]) == (None, 500)
    [row] = made(used("plain", MILLION), used("unpriced", 7, completion=3))["rows"]
    assert (row["cost_usd"], row["unpriced_tokens"], row["requests"]) == (1.0, 10, 2)


def test_rows_have_the_dimensions_asked_for_and_add_up_to_the_total() -> None:
    found = [used("dear", 10, 1, 5, day=2, key="a"), used("plain", 20, 2, 6, day=1, key="b"),
             used("plain", 30, 3, 7, day=2, key="b")]  # fmt: skip
    days = made(*found, by=("day", "key"))
    assert [(r["day"], r["key"], r["total_tokens"]) for r in days["rows"]] == [
        ("1970-01-02", "b", 26), ("1970-01-03", "b", 37), ("1970-01-03", "a", 15),
    ]  # fmt: skip
    assert "model" not in days["rows"][0]
    assert days["total"]["total_tokens"] == 78
    assert days["total"]["cached_tokens"] == 6
    assert days["total"]["cost_usd"] == pytest.approx(sum(r["cost_usd"] for r in days["rows"]))
    [everything] = made(*found, by=())["rows"]
    assert everything == days["total"]
    assert made(by=("key",))["rows"] == []


def test_days_are_utc_dates() -> None:
    assert [day_of(day) for day in (0, 20_000)] == ["1970-01-01", "2024-10-04"]


def test_csv_has_a_header_and_quotes_what_needs_it() -> None:
    text = as_csv(("key", "cost_usd"), [{"key": 'a,"b', "cost_usd": None, "other": 1}]).decode()
    assert text == 'key,cost_usd\r\n"a,""b",\r\n'
