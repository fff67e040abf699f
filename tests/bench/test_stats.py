from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.bench.row import CellKey
from helexa.bench.stats.curves import Level, flatness, goodput, knee
from helexa.bench.stats.ranks import (
    holm,
    midranks,
    p_greater,
    shift_ratio,
    stratified_p_greater,
    superiority,
)
from helexa.bench.stats.summary import median, median_interval, percentile, summarise
from helexa.bench.stats.verdict import ALPHA, Compared, judge, judge_groups, share_alone

SMALL = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=5)


@given(SMALL, SMALL)
def test_the_exact_rank_test_counts_every_split_ties_included(
    old: list[float], new: list[float]
) -> None:
    ranks = midranks([*old, *new])
    observed = sum(ranks[len(old) :])
    splits = list(itertools.combinations(range(len(ranks)), len(new)))
    high = sum(sum(ranks[i] for i in split) >= observed - 1e-9 for split in splits)
    assert p_greater(old, new) == pytest.approx(high / len(splits))


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_beyond_small_sets_the_normal_approximation_stays_close(seed: int) -> None:
    draw = random.Random(seed)
    old = [draw.gauss(0, 1) for _ in range(10)]
    new = [draw.gauss(0.3, 1) for _ in range(10)]
    exact = p_greater(old, new)
    larger = p_greater([*old, -99.0], [*new, 99.0])  # 11 × 11 is beyond the table
    assert 0 <= larger <= exact + 0.05


def test_the_bootstrap_interval_of_the_median_is_what_resampling_gives() -> None:
    draw = random.Random(7)
    samples = sorted(draw.lognormvariate(0, 0.5) for _ in range(9))
    medians = sorted(median(sorted(draw.choices(samples, k=9))) for _ in range(20_000))
    low, high = median_interval(samples)
    assert low == percentile(medians, 0.025)
    assert high == percentile(medians, 0.975)


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40))
def test_a_summary_holds_its_median_inside_its_interval(samples: list[float]) -> None:
    found = summarise(samples)
    assert found is not None
    assert min(samples) <= found.low <= found.median <= found.high <= max(samples)
    assert found.median <= found.p95 <= found.p99


def test_holm_steps_down_and_never_below_an_earlier_one() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_many_small_shifts_together_are_seen_where_none_is_alone() -> None:
    strata = [([10.0, 12.0, 14.0], [13.0, 15.0, 11.0 + i / 100]) for i in range(40)]
    assert all(p_greater(old, new) > 0.05 for old, new in strata)
    assert stratified_p_greater(strata) < 0.01


def test_effect_size_is_a_chance_and_a_ratio() -> None:
    assert superiority([1, 2, 3], [4, 5, 6]) == 1.0
    assert superiority([1, 2], [1, 2]) == 0.5
    assert shift_ratio([100, 102, 98], [108, 110, 106]) == pytest.approx(1.08, abs=0.01)


def cells(
    draw: random.Random, slow: str | None, factor: float = 1.08, count: int = 12
) -> list[Compared]:
    """Two targets of so many cells, five samples each, 2 % log-normal noise."""
    made = []
    for target in ("a", "b"):
        for i in range(count):
            by = factor if target == slow else 1.0
            old = tuple(100 * draw.lognormvariate(0, 0.02) for _ in range(5))
            new = tuple(100 * by * draw.lognormvariate(0, 0.02) for _ in range(5))
            made.append(
                Compared(CellKey(target, "new", "m", f"s{i}"), "answer_ms", "old", old, new)
            )
    return made


def test_a_node_that_became_8_percent_slower_is_found_and_nothing_else() -> None:
    draw = random.Random(3)
    found = right = 0
    for _ in range(40):
        slower = {v.target for v in judge(cells(draw, "b")) if v.word == "slower"}
        found += "b" in slower
        right += "a" not in slower
    assert found >= 38
    assert right >= 38


def test_many_cells_of_few_runs_are_judged_together_where_none_can_be_alone() -> None:
    draw = random.Random(9)
    many = cells(draw, "b", count=40)
    assert not [v for v in judge(many) if v.word == "slower"]
    found = {v.target: v.word for v in judge_groups(many)}
    assert found == {"a": "same", "b": "slower"}
    unsure = [v for v in judge(many) if v.word == "unsure"]
    assert sum(v.target == "b" for v in unsure) > 30


def test_without_a_change_hardly_a_sweep_raises_an_alarm() -> None:
    draw = random.Random(4)
    sweeps = [cells(draw, None) for _ in range(60)]
    verdicts = [(*judge(sweep), *judge_groups(sweep)) for sweep in sweeps]
    assert sum(any(v.word == "slower" for v in found) for found in verdicts) <= 3


def test_no_more_than_one_sweep_in_twenty_raises_an_alarm_of_either_kind() -> None:
    """The bound itself: groups have what single cells leave of it."""

    def shares(targets: int, count: int, runs: int = 5) -> tuple[float, float]:
        values = tuple(map(float, range(runs)))
        found = [
            Compared(CellKey(f"t{t}", "b", "m", f"s:{i}"), "answer_ms", "a", values, values)
            for t in range(targets)
            for i in range(count)
        ]
        return len(found) / math.comb(2 * runs, runs), share_alone(found)

    assert shares(1, 4)[1] == ALPHA / 2  # half of it each
    assert shares(1, 12, 10)[1] == ALPHA / 2
    for targets, count in ((1, 12), (2, 6), (3, 4)):
        least, alone = shares(targets, count)
        assert ALPHA / 2 < alone == least < ALPHA  # twelve have no p below 12/252
    assert shares(1, 13)[1] == 0  # and thirteen no chance
    assert shares(3, 1)[1] == ALPHA  # no groups to share with


def test_one_scenario_that_broke_is_found_among_a_dozen_on_one_target_or_two() -> None:
    old, new = tuple(map(float, range(100, 105))), tuple(map(float, range(110, 115)))
    for targets in (1, 2):
        found = [
            Compared(CellKey(f"t{i % targets}", "b", "m", f"s:{i}"), "answer_ms", "a",
                     old, new if i == 0 else old)
            for i in range(12)
        ]  # fmt: skip
        assert [v.scenario for v in judge(found) if v.word == "slower"] == ["s:0"]
        assert "slower" not in {v.word for v in judge_groups(found)}


def test_a_faster_build_is_called_faster_and_a_rate_that_falls_is_slower() -> None:
    key = CellKey("a", "new", "m", "chat:1")
    quick = Compared(key, "answer_ms", "old", (10, 11, 12, 10.5, 11.5), (5, 6, 5.5, 5.2, 6.1))
    assert judge([quick])[0].word == "faster"
    falls = Compared(key, "decode_rate", "old", (50, 51, 52, 50.5, 51.5), (40, 41, 42, 40.5, 41.5),
                     higher_is_better=True)  # fmt: skip
    verdict = judge([falls])[0]
    assert (verdict.word, round(verdict.change, 2), verdict.effect) == ("slower", -0.2, 1.0)


def test_two_runs_are_too_few_for_any_verdict() -> None:
    key = CellKey("a", "new", "m", "chat:1")
    assert judge([Compared(key, "answer_ms", "old", (1.0, 1.1), (9.0, 9.1))])[0].word == "unsure"


def test_a_shift_that_few_runs_cannot_prove_is_not_called_the_same() -> None:
    noisy = [
        Compared(CellKey("t", "b2", "m", f"chat:{n}"), "answer_ms", "b1",
                 (100.0, 150.0, 200.0), (60.0, 70.0, 160.0))
        for n in (1, 2)
    ]  # fmt: skip
    assert [verdict.word for verdict in judge(noisy)] == ["unsure", "unsure"]
    assert [verdict.word for verdict in judge_groups(noisy)] == ["unsure"]


def test_a_significant_trifle_is_no_regression() -> None:
    key = CellKey("a", "new", "m", "chat:1")
    old = tuple(100 + i / 1000 for i in range(20))
    new = tuple(101 + i / 1000 for i in range(20))
    assert judge([Compared(key, "answer_ms", "old", old, new)])[0].word == "same"


def test_the_knee_is_the_last_level_before_waiting_or_refusing_starts() -> None:
    levels = [Level(1, 50), Level(2, 60), Level(4, 90), Level(8, 300), Level(16, 80)]
    assert knee(levels) == 4
    assert knee([Level(1, 50), Level(2, 60, refused=1)]) == 1
    assert knee([]) is None


def test_flatness_is_the_slope_per_doubling() -> None:
    assert flatness({128: 100.0, 256: 100.0, 512: 100.0}) == pytest.approx(0)
    assert flatness({128: 100.0, 256: 50.0}) == pytest.approx(-1)
    assert flatness({128: 100.0}) is None


def test_goodput_counts_what_met_both_objectives() -> None:
    met = goodput([100, 900, None, 50], [10, 10, None, 200],
                  first_within_ms=500, between_within_ms=50)  # fmt: skip
    assert met == 0.25
