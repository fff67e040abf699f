"""A node of another version: what it says besides is passed over, what it leaves out is usual."""

from __future__ import annotations

import msgspec
import pytest

from helexa.core.fleet import (
    Device,
    DeviceReading,
    Discovery,
    Health,
    Limit,
    LocalSocket,
    ModelEntry,
    ModelLoad,
    NodeVersion,
    RequestRecord,
)

SAID = (
    Discovery(devices=[Device(0)], socket=LocalSocket("/s", "a", 1), multiplex=1),
    Health(devices=[DeviceReading(0)], models=[ModelLoad("m")]),
    ModelEntry("m", "loaded", limit=Limit(8, 4, 4)),
    NodeVersion("0.1.0"),
    RequestRecord("r", 1, "g", 1, "m", "complete"),
)


def with_more(value: object) -> object:
    """The same, with a member more in every object of it."""
    if isinstance(value, dict):
        return {name: with_more(of) for name, of in value.items()} | {"of_a_newer": {"node": [1]}}
    return [with_more(of) for of in value] if isinstance(value, list) else value


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_what_a_newer_node_says_besides_is_passed_over(said: msgspec.Struct) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(said))
    for member in ("engines", "loaded_as"):  # free by their meaning
        plain.pop(member, None)
    newer = msgspec.json.encode(with_more(plain))
    assert msgspec.json.decode(newer, type=type(said)) == said


def test_a_newer_node_may_be_on_its_way_to_ready_in_other_words() -> None:
    body = b'{"activation": {"state": "checking", "pending": ["m"]}}'
    assert msgspec.json.decode(body, type=Health).activation.pending == ["m"]


def test_of_a_model_only_its_id_and_its_status_are_required() -> None:
    body = b'[{"id": "m", "status": "resting"}]'
    assert msgspec.json.decode(body, type=list[ModelEntry])[0].status == "resting"
