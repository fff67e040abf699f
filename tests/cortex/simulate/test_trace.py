"""Traces are read line by line, and refused with the line's number."""

from __future__ import annotations

import pytest

from helexa.cortex.simulate.trace import Asked, TraceError, ask_of, customers, read, write


def test_a_trace_survives_being_written_and_read() -> None:
    made = list(customers(20.0, 2.0, seed=3, many=5))
    assert list(read(write(made))) == made


def test_comments_and_empty_lines_are_left_out() -> None:
    (asked,) = read(["# made by hand", "", '{"at": 1, "prompt": [["a", 10]], "output": 5}'])
    assert asked == Asked(1.0, "model", (("a", 10),), 5)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{"], "line 1"),
        (['{"at": 1, "models": "m"}'], "models"),
        (['{"at": 2, "prompt": [["a", 1]]}', '{"at": 1, "prompt": [["a", 1]]}'], "line 2.*sort"),
        (['{"at": 1, "prompt": [["a", 0]]}'], "line 1.*tokens"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_by_number(lines: list[str], words: str) -> None:
    with pytest.raises(TraceError, match=words):
        list(read(lines))


def test_prompts_that_begin_with_the_same_pieces_share_their_points() -> None:
    one = ask_of(Asked(0.0, prompt=(("s", 100), ("a", 10))))
    two = ask_of(Asked(0.0, prompt=(("s", 100), ("b", 10))))
    other = ask_of(Asked(0.0, prompt=(("t", 100), ("a", 10))))
    assert one.points[0] == two.points[0]
    assert len({*one.points, *two.points, *other.points}) == 5
    assert (one.sizes, one.tokens) == ([100, 110], 110)


def test_the_generated_customers_are_the_same_for_a_seed_and_come_at_their_rate() -> None:
    made = list(customers(100.0, 20.0, seed=1))
    assert made == list(customers(100.0, 20.0, seed=1)) != list(customers(100.0, 20.0, seed=2))
    late = [asked for asked in made if asked.at > 15.0]
    assert 0.9 * 2000 < len(late) < 1.1 * 2000
    assert len({asked.prompt[0] for asked in made[:150]}) == 150
