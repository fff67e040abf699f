"""The model list as OpenAI's and Anthropic's clients read it."""

from __future__ import annotations

import pytest

from helexa.core.errors import InvalidRequestBody
from helexa.core.fleet import Limit
from helexa.wire.models_list import (
    ListedModel,
    Location,
    Page,
    anthropic_list,
    openai_entry,
    openai_list,
)

WARM = ListedModel(
    "a/b",
    created=1_700_000_000,
    loaded=True,
    feasible_on=("one",),
    locations=(Location("one", "loaded", 5),),
    capabilities=("text",),
    limit=Limit(100, 80, 20),
    cost={"input": 0.0, "output": 1.0},
    tool_call=True,
)
COLD = ListedModel("c")


def test_openai_entries_carry_what_the_contract_adds() -> None:
    assert openai_entry(WARM) == {
        "id": "a/b",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "helexa",
        "loaded": True,
        "feasible_on": ["one"],
        "locations": [{"node": "one", "status": "loaded", "vram_estimate_mb": 5}],
        "capabilities": ["text"],
        "tool_call": True,
        "reasoning": False,
        "limit": {"context": 100, "input": 80, "output": 20},
        "max_model_len": 100,
        "max_input_tokens": 80,
        "max_output_tokens": 20,
        "cost": {"input": 0.0, "output": 1.0},
    }


def test_unknown_limits_and_prices_are_absent_not_zero() -> None:
    assert not {"limit", "cost", "max_model_len"} & openai_entry(COLD).keys()


def test_lists_have_their_vendors_shape() -> None:
    assert openai_list([WARM])["object"] == "list"
    both = anthropic_list([WARM, COLD])
    assert (both["has_more"], both["first_id"], both["last_id"]) == (False, "a/b", "c")
    assert both["data"] == [
        {
            "type": "model",
            "id": "a/b",
            "display_name": "a/b",
            "created_at": "2023-11-14T22:13:20Z",
            "lifecycle": "active",
            "max_input_tokens": 80,
            "max_tokens": 20,
        },
        {
            "type": "model",
            "id": "c",
            "display_name": "c",
            "created_at": "1970-01-01T00:00:00Z",
            "lifecycle": "active",
        },
    ]
    assert anthropic_list([])["first_id"] is None


@pytest.mark.parametrize(
    ("page", "shown", "more"),
    [
        (Page(2), "ab", True),
        (Page(2, after="b"), "cd", True),
        (Page(2, after="d"), "e", False),
        (Page(5), "abcde", False),
        (Page(2, before="e"), "cd", True),
        (Page(2, before="c"), "ab", False),
        (Page(2, after="e"), "", False),
    ],
)
def test_anthropics_list_is_paged_both_ways(page: Page, shown: str, more: bool) -> None:
    got = anthropic_list([ListedModel(name) for name in "abcde"], page)
    data = got["data"]
    assert isinstance(data, list)
    assert "".join(entry["id"] for entry in data) == shown
    ends = (got["has_more"], got["first_id"], got["last_id"])
    assert ends == (more, shown[0] if shown else None, shown[-1] if shown else None)


def test_a_page_at_a_model_that_is_not_listed_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestBody, match="'gone'") as refused:
        anthropic_list([WARM], Page(after="gone"))
    assert refused.value.param == "after_id"
