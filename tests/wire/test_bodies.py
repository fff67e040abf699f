"""What a body of our own routes must be, and what is said when it is not."""

from __future__ import annotations

import gzip

import msgspec
import pytest

from helexa.core.errors import InvalidJson, InvalidRequestBody
from helexa.neuron.engines.request import decode
from helexa.wire.bodies import decode_as
from helexa.wire.messages.decode import decode_messages
from helexa.wire.peek import peek
from helexa.wire.responses.decode import read_body


class Order(msgspec.Struct, forbid_unknown_fields=True):
    node: str = "n"
    seats: list[int] = []


def test_a_body_becomes_what_it_must_be_and_an_empty_one_has_the_defaults() -> None:
    assert decode_as(b'{"node": "a", "seats": [1]}', Order) == Order("a", [1])
    assert decode_as(b"", Order) == Order()


def test_what_is_wrong_is_named_by_its_path() -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        decode_as(b'{"seats": [1, "x"]}', Order)
    assert refused.value.param == "seats[1]"


def test_what_is_no_json_says_so() -> None:
    with pytest.raises(InvalidJson):
        decode_as(b"{", Order)


def test_a_compressed_body_is_told_to_come_plain() -> None:
    with pytest.raises(InvalidJson, match=r"compressed \(gzip\)"):
        peek(gzip.compress(b'{"model": "m"}'))


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


@pytest.mark.parametrize(
    "body", [b'{"model": "m", "x": %b}' % DEEP, b'{"model": "a\xffb"}', b'{"model": "m"'],
    ids=["nested too deeply", "no UTF-8", "cut off"],
)  # fmt: skip
def test_no_bytes_that_a_client_can_send_are_more_than_a_refusal(body: bytes) -> None:
    def own(body: bytes) -> object:
        return decode_as(body, dict)

    for read in (own, peek, decode_messages, read_body, decode):
        with pytest.raises(InvalidJson):
            read(body)
