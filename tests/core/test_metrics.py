"""Metrics are exact, bounded, and readable by Prometheus' own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from helexa.core.metrics import DURATION_BUCKETS, OTHER, Family, Histogram, Registry, exposition
from helexa.core.metrics import Counter as OurCounter


def parsed(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition(registry).decode())
        for sample in family.samples
    }


def test_what_was_counted_is_what_prometheus_reads() -> None:
    registry = Registry("x_")
    requests = registry.counter("requests_total", "Requests.", "model", "node")
    requests.labels("a/b", 'n"1\\\n').inc()
    requests.labels("a/b", 'n"1\\\n').inc(4)
    registry.gauge("open", "Open.").labels().set(-2.5)
    seconds = registry.histogram("seconds", "S.", "m", bounds=(0.1, 1.0)).labels("m")
    for value in (0.05, 0.1, 0.5, 7.0):
        seconds.observe(value)
    read = parsed(registry)
    assert read["x_requests_total", (("model", "a/b"), ("node", 'n"1\\\n'))] == 5
    assert read["x_open", ()] == -2.5
    assert read["x_seconds_bucket", (("le", "0.1"), ("m", "m"))] == 2
    assert read["x_seconds_bucket", (("le", "1"), ("m", "m"))] == 3
    assert read["x_seconds_bucket", (("le", "+Inf"), ("m", "m"))] == 4
    assert read["x_seconds_count", (("m", "m"),)] == 4
    assert read["x_seconds_sum", (("m", "m"),)] == pytest.approx(7.65)


def test_types_and_help_are_announced_once_per_family() -> None:
    registry = Registry("x_")
    family = registry.counter("a_total", "Help.", "k")
    family.labels("1").inc()
    family.labels("2").inc()
    text = exposition(registry).decode()
    assert text.count("# TYPE x_a_total counter\n") == 1
    assert text.count("# HELP x_a_total Help.\n") == 1


@given(st.lists(st.floats(0, 2000, allow_nan=False), max_size=50))
def test_bulk_counts_equal_single_observations(values: list[float]) -> None:
    one, bulk, sender = (Histogram(DURATION_BUCKETS) for _ in range(3))
    for value in values:
        one.observe(value)
        sender.observe(value)
    bulk.add_bucket_counts(sender.counts, sender.total)
    assert bulk.counts == one.counts
    assert sum(bulk.counts) == len(values)
    assert bulk.total == pytest.approx(sum(values))


def test_bulk_counts_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="3 buckets"):
        Histogram((1.0,)).add_bucket_counts([1, 2, 3], 1.0)


def test_label_sets_are_bounded() -> None:
    family = Family("x", "X.", ("k",), kind="counter", make=OurCounter, max_children=3)
    for index in range(100):
        family.labels(str(index)).inc()
    values = [line for line in family.lines() if not line.startswith("#")]
    assert len(values) == 4
    assert f'x{{k="{OTHER}"}} 97\n' in values


def test_a_wrong_number_of_labels_and_a_name_twice_are_refused() -> None:
    registry = Registry("x_")
    with pytest.raises(ValueError, match="labels"):
        registry.counter("a_total", "A.", "k").labels()
    with pytest.raises(ValueError, match="exists"):
        registry.gauge("a_total", "A.")


def test_derived_gauges_are_updated_before_rendering_and_gone_ones_forgotten() -> None:
    registry = Registry("x_")
    family = registry.gauge("g", "G.", "node")
    registry.before_collect(lambda: family.labels("n").set(7))
    assert parsed(registry)["x_g", (("node", "n"),)] == 7
    family.forget("n")
    assert not list(registry.lines())
