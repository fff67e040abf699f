"""What the headers of a gateway say, and what a caller without one is."""

from __future__ import annotations

import pytest

from helexa.core.errors import InvalidRequestBody
from helexa.core.ids import id_source
from helexa.neuron.exchange.caller import Caller, gateway_of, read_caller
from helexa.relay.request import Head, Request

IDS = id_source(1)


def caller(**headers: str) -> Caller:
    fields = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
    head = Head(b"POST", b"/v1/chat/completions", fields)
    return read_caller(Request(head, b"", 0.0, "", secure=False), IDS)


def test_a_gateways_headers_are_taken() -> None:
    found = caller(
        x_helexa_gateway="gw-1/42",
        x_request_id="abc",
        x_helexa_attempt="2",
        x_helexa_grant="512",
        x_helexa_account_id="acme",
        x_helexa_key_id="ci",
        x_include_thinking="true",
        x_helexa_deadline_ms="1500",
    )
    assert found == Caller("abc", 2, "gw-1", 42, 512, "acme", "ci", True, 1.5, True)
    assert not found.anonymous


def test_a_gateways_catalogue_may_ask_for_thinking() -> None:
    assert caller(x_helexa_gateway="gw", x_helexa_thinking="on").thinking
    assert not caller(x_helexa_gateway="gw").thinking


def test_a_gateway_tells_the_priority_of_a_key_and_nobody_else_does() -> None:
    assert caller(x_helexa_gateway="gw", x_helexa_priority="-7").priority == -7
    assert caller(x_helexa_gateway="gw").priority == 0
    assert caller(x_helexa_priority="9").priority == 0
    with pytest.raises(InvalidRequestBody):
        caller(x_helexa_gateway="gw", x_helexa_priority="high")


def test_a_direct_caller_cannot_claim_to_be_somebody() -> None:
    found = caller(x_helexa_key_id="root", x_helexa_grant="5", x_request_id="mine")
    assert (found.gateway, found.granted, found.key_id) == (None, None, "direct")
    assert found.request_id == "mine"


def test_a_request_without_an_id_gets_one_of_letters() -> None:
    found = caller().request_id
    assert found.startswith("req_")
    assert found.removeprefix("req_").isalpha()


def test_a_gateways_anonymous_caller_is_anonymous() -> None:
    assert caller(x_helexa_gateway="gw").anonymous


@pytest.mark.parametrize("value", ["many", "-1", "1.5", ""])
def test_a_grant_that_is_no_count_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestBody, match="x-helexa-grant"):
        caller(x_helexa_gateway="gw", x_helexa_grant=value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gw/7", ("gw", 7)),
        ("gw", ("gw", 0)),
        ("a/b", ("a/b", 0)),
        ("a/b/9", ("a/b", 9)),
        ("", (None, 0)),
    ],
)
def test_a_gateway_is_a_name_and_maybe_an_epoch(text: str, found: tuple[str | None, int]) -> None:
    assert gateway_of(text) == found


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 400])
def test_a_deadline_that_is_none_is_refused_by_its_header(value: str) -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        caller(x_helexa_deadline_ms=value)
    assert refused.value.param == "x-helexa-deadline-ms"
