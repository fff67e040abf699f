"""What a body of our own routes must be, and what is said when it is not."""

from __future__ import annotations

import msgspec
import pytest

from helexa.core.errors import InvalidJson, InvalidRequestBody
from helexa.wire.bodies import decode_as


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
