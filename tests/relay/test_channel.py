"""Channels by themselves: every state of them, over a wire that is moved by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.relay.joined import End, Joined, Once, frame

from helexa.relay import channel
from helexa.relay import multiplex as module
from helexa.relay.channel import ABORT, CLOSE, GO, HOLD, OPEN
from helexa.relay.multiplex import FRAME, MOST, PIECE

OPS = ("open", "write", "write", "pause", "resume", "close", "abort", "carry", "carry", "turn")


@settings(max_examples=150, deadline=None)
@given(
    ops=st.lists(
        st.tuples(st.sampled_from(OPS), st.integers(0, 1), st.integers(0, 7), st.integers(0, 60)),
        min_size=10,
        max_size=120,
    ),
    high=st.sampled_from([30, 200, 1 << 20]),
    breaks=st.booleans(),
)
def test_whatever_both_sides_do_bytes_arrive_in_order_and_each_end_is_told_once(
    ops: list[tuple[str, int, int, int]], high: int, breaks: bool
) -> None:
    joined = Joined(high)
    for number, (op, side, which, size) in enumerate(ops):
        ends = joined.accepted if side else joined.asked
        if op == "open":
            joined.open()
        elif op == "carry":
            joined.carry(side, size)
        elif op == "turn":
            joined.loop.turn()
        elif ends:
            act(ends[which % len(ends)], op, b"%d;" % number * (size // 6))
    if breaks:
        joined.wires[ops[0][1]].abort()
        joined.loop.turn()
        joined.wires[1 - ops[0][1]].abort()
    joined.settle()
    finish(joined)
    for near, far in zip(joined.asked, joined.accepted, strict=not breaks):
        for wrote, got in ((near, far), (far, near)):
            assert wrote.wrote.startswith(got.got)
            if not (breaks or wrote.aborted or got.left):
                assert wrote.wrote == got.got
    assert all(len(end.over) == 1 for end in joined.asked + joined.accepted)
    assert joined.empty()
    assert not joined.loop.errors


def act(end: End, op: str, data: bytes) -> None:
    if op == "write":
        end.write(data)
    elif op == "pause":
        end.act(end.transport.pause_reading)
    elif op == "resume":
        end.act(end.transport.resume_reading)
    else:
        end.leave(abort=op == "abort")


def finish(joined: Joined) -> None:
    """Everybody reads on, and then who asked has had enough."""
    for end in joined.asked + joined.accepted:
        end.transport.resume_reading()
    joined.settle()
    for end in joined.asked:
        end.transport.close()
    joined.settle()


def test_a_piece_longer_than_a_frame_arrives_as_it_was() -> None:
    joined = Joined()
    near, far = joined.pair()
    near.write(bytes(range(256)) * 1000)
    joined.settle()
    assert far.got == near.wrote


def test_who_writes_on_and_on_within_a_turn_meets_the_kernels_pace() -> None:
    for size in (100, 5000, 200_000):
        joined = Joined(high=1 << 20)
        _, far = joined.pair()
        wrote = 0
        while not far.paused and wrote < 1 << 24:
            far.write(b"x" * size)
            wrote += size
        assert 900_000 < wrote < 3 << 20


def test_the_pieces_of_one_read_are_one_again_and_stand_before_the_end_behind_them() -> None:
    joined = Joined()
    near, far = joined.pair()
    told: list[bytes] = []
    far.transport._multiplex._receivers[1] = told.append
    near.write(b"a")
    near.write(b"b")
    near.leave()
    joined.settle()
    assert told == [b"ab"]
    assert far.over == [None]


def test_one_who_asks_to_wait_before_anything_was_written_is_heard() -> None:
    """A gateway's reader may be slow already when its request gets a channel."""
    joined = Joined()
    near = joined.open()
    near.transport.pause_reading()
    near.write(b"request")
    joined.settle()
    (far,) = joined.accepted
    assert far.paused
    far.write(b"answer")
    joined.settle()
    assert not near.got
    assert far.transport.get_write_buffer_size() == 6
    near.transport.resume_reading()
    joined.settle()
    assert near.got == b"answer"
    assert not far.paused


def test_one_who_waits_a_second_time_is_not_told_either() -> None:
    joined = Joined()
    near, far = joined.pair()
    for before in (b"", b"1"):
        near.transport.pause_reading()
        far.write(b"1")
        joined.settle()
        assert bytes(near.got) == before
        near.transport.resume_reading()
        joined.settle()
        assert bytes(near.got) == before + b"1"


def test_channels_may_speak_in_another_order_than_they_were_begun() -> None:
    joined = Joined()
    first, second = joined.open(), joined.open()
    second.write(b"2")
    joined.settle()
    first.write(b"1")
    joined.settle()
    assert [far.got for far in joined.accepted] == [b"1", b"2"]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_one_who_leaves_while_bytes_wait_behind_the_others_end_is_told(how: str) -> None:
    joined = Joined()
    near, far = joined.pair()
    far.transport.pause_reading()
    near.write(b"not read yet")
    near.leave()
    joined.settle()
    assert not far.over
    far.leave(abort=how == "abort")
    joined.settle()
    assert len(far.over) == 1
    assert not far.got


def test_closing_behind_held_bytes_waits_for_them_and_hears_nothing_more() -> None:
    joined = Joined()
    near, far = joined.pair()
    near.transport.pause_reading()
    joined.settle()
    far.write(b"the rest")
    far.leave()
    near.write(b"too late")
    joined.settle()
    assert not far.over
    assert far.transport.is_closing()
    near.transport.resume_reading()
    joined.settle()
    assert near.got == b"the rest"
    assert (near.over, far.over) == ([None], [None])


@pytest.mark.parametrize("where", ["made", "data", "pause", "resume", "lost"])
def test_a_protocol_that_raises_ends_itself_and_no_other(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = Joined()
    near, far = joined.pair()
    other, its = joined.pair()
    far.trips = where
    if where == "made":
        monkeypatch.setattr(joined.far, "_accept", lambda: tripping(joined, where))
        near = joined.open()
        joined.settle()
        far = joined.accepted[-1]
    for act in (near.transport.pause_reading, near.transport.resume_reading):
        act()
        near.write(b"x")
        joined.settle()
    near.leave()
    joined.settle()
    assert [type(e["exception"]) for e in joined.loop.errors] == [ZeroDivisionError]
    assert len(near.over) == len(far.over) == 1
    other.write(b"still here")
    joined.settle()
    assert its.got == b"still here"


def tripping(joined: Joined, where: str) -> End:
    end = End()
    end.trips = where
    joined.accepted.append(end)
    return end


def test_one_that_raises_as_it_catches_up_ends_and_keeps_nothing() -> None:
    joined = Joined()
    near, far = joined.pair()
    far.transport.pause_reading()
    near.write(b"1")
    joined.settle()
    far.trips = "data"
    far.transport.resume_reading()
    joined.settle()
    assert [type(e["exception"]) for e in joined.loop.errors] == [ZeroDivisionError]
    assert len(near.over) == len(far.over) == 1
    assert joined.empty()


def test_one_who_does_not_wait_for_a_slow_reader_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MOST_WAITING", 10_000)
    joined = Joined()
    (near, far), (other, its) = joined.pair(), joined.pair()
    far.transport.pause_reading()
    joined.settle()
    for _ in range(2):  # what has been read since does not count
        joined.far.data_received(frame(1, PIECE, b"x" * 6000))
        far.transport.resume_reading()
        joined.settle()
        far.transport.pause_reading()
    for _ in range(3):
        joined.far.data_received(frame(1, PIECE, b"x" * 6000))
    joined.settle()
    assert [type(error) for error in far.over] == [ConnectionAbortedError]
    assert [type(error) for error in near.over] == [ConnectionResetError]
    assert len(far.got) == 12_000
    other.write(b"still here")
    joined.settle()
    assert its.got == b"still here"


def test_the_connections_end_reaches_everybody_although_one_raises() -> None:
    joined = Joined()
    pairs = [joined.pair() for _ in range(3)]
    pairs[0][0].trips = "lost"
    joined.near.abort()
    joined.settle()
    assert all(len(near.over) == 1 for near, _ in pairs)


def test_one_who_ends_others_while_pieces_are_handed_out_has_ended_them() -> None:
    joined = Joined()
    pairs = [joined.pair() for _ in range(3)]
    victims = [far for _, far in pairs[1:]]

    def end_the_others(_data: bytes) -> None:
        victims[0].leave(abort=True)
        victims[1].leave()

    joined.far._receivers[1] = end_the_others
    for near, _ in pairs:
        near.write(b"x")
    joined.settle()
    assert [far.got for far in victims] == [b"", b""]
    assert [len(far.over) for far in victims] == [1, 1]
    assert [len(near.over) for near, _ in pairs] == [0, 1, 1]


def test_a_kernel_that_takes_nothing_holds_every_channel_and_new_ones() -> None:
    joined = Joined(high=100)
    near, far = joined.pair()
    other, its = joined.pair()
    far.write(b"x" * 200)
    joined.loop.turn()
    assert joined.far.full
    assert far.paused
    assert its.paused
    joined.near.channel(End)
    joined.loop.turn()
    joined.carry(0, 1 << 20)
    assert joined.accepted[-1].paused
    joined.settle()
    assert not any(end.paused for end in joined.accepted)
    assert near.got == b"x" * 200
    assert not other.got


@pytest.mark.parametrize("reads", [False, True])
def test_who_takes_nothing_for_so_long_is_cut_with_all_channels(reads: bool) -> None:
    joined = Joined(high=100)
    pairs = [joined.pair() for _ in range(20)]
    wheel = Once()
    joined.far.guard(cast("Any", wheel), 30.0, 8.0)
    for step in range(40):
        # Each gives up in its own time; that the others say so is no sign of the reader.
        far = pairs[step % 20][1]
        far.write(b"x" * 50) if step < 20 else far.leave(abort=True)
        joined.loop.turn()
        if reads:
            joined.carry(1, 40)
        wheel.until(joined.loop, float(step))
        joined.loop.turn()
    assert joined.wires[1].closing is not reads
    assert all(far.over for _, far in pairs)


@pytest.mark.parametrize(
    "bytes_",
    [
        frame(1, OPEN) + frame(1, OPEN),
        frame(2, OPEN) + frame(1, OPEN),
        frame(0, OPEN),
        frame(1, 6),
        frame(1, OPEN) + frame(1, 7),
        FRAME.pack(1, (MOST + 1) << 3 | PIECE),
        b"".join(frame(n, OPEN) for n in range(1, 12)),
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
    ids=["twice", "downwards", "zero", "kind", "kind of one", "size", "too many", "http"],
)
def test_what_nobody_of_ours_says_ends_the_connection(
    bytes_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_CHANNELS", 10)
    joined = Joined()
    joined.far.data_received(bytes_)
    joined.settle()
    assert joined.wires[1].closing
    assert all(len(far.over) == 1 for far in joined.accepted)
    assert joined.empty()


def test_what_is_said_of_channels_that_are_over_is_not_heard() -> None:
    joined = Joined()
    near, far = joined.pair()
    far.leave(abort=True)
    joined.settle()
    frames = [frame(1, kind) for kind in (HOLD, GO, CLOSE, ABORT)]
    joined.far.data_received(b"".join(frames) + frame(1, PIECE, b"late") + frame(7, PIECE, b"?"))
    joined.settle()
    assert not joined.wires[1].closing
    assert len(near.over) == 1
    assert not far.got


def test_the_last_number_is_the_last_channel() -> None:
    joined = Joined()
    joined.near._last = 2**32 - 2
    near, far = joined.pair()
    assert not joined.near.usable
    with pytest.raises(ConnectionAbortedError):
        joined.open()
    near.write(b"still good")
    joined.settle()
    assert far.got == b"still good"
