"""What is kept is found again by whom it belongs to, within bounds."""

from __future__ import annotations

import threading
from hashlib import sha256

import pytest
from tests.cortex.responses.conftest import Clock, Make

from helexa.cortex.ledger.schema import version_of
from helexa.cortex.responses.base import Kept, KeptItem
from helexa.cortex.responses.memory import MemoryShelf
from helexa.cortex.responses.sql import RESPONSES, STEPS, SqlShelf


def kept(name: str, clock: Clock, previous: str | None = None, size: int = 0) -> Kept:
    """A response with one item in and one out."""
    items = (
        KeptItem(f"in_{name}", False, f'"in {name}"'.encode()),
        KeptItem(f"out_{name}", True, f'"out {name} \u00e9\\u0000"'.encode()),
    )
    return Kept(name, previous, clock(), b'"body"' + b" " * size, items)


def test_a_response_its_input_and_its_items_are_found_by_its_owner_only(
    make: Make, clock: Clock
) -> None:
    shelf = make()
    shelf.put("mine", kept("a", clock))
    assert shelf.find("mine", "a") == b'"body"'
    assert shelf.inputs("mine", "a") == [b'"in a"']
    assert shelf.named("mine", ["out_a", "out_b"]) == {"out_a": kept("a", clock).items[1].body}
    for nobody in ("yours", ""):
        assert shelf.find(nobody, "a") is None
        assert shelf.inputs(nobody, "a") is None
        assert shelf.history(nobody, "a") is None
        assert shelf.named(nobody, ["out_a"]) == {}
        assert shelf.delete(nobody, "a") is False
    assert shelf.find("mine", "a") is not None


def test_history_is_the_whole_chain_oldest_first(make: Make, clock: Clock) -> None:
    shelf = make()
    shelf.put("me", kept("a", clock))
    shelf.put("me", kept("b", clock, "a"))
    shelf.put("me", kept("c", clock, "b"))
    shelf.put("me", kept("other", clock, "a"))
    found = shelf.history("me", "c")
    assert found is not None
    assert [item.split()[1][:1] for item in found] == [b"a", b"a", b"b", b"b", b"c", b"c"]
    assert [item[1:3] for item in found] == [b"in", b"ou"] * 3


def test_a_chain_with_a_missing_link_is_not_there(make: Make, clock: Clock) -> None:
    shelf = make()
    shelf.put("me", kept("a", clock))
    shelf.put("me", kept("b", clock, "a"))
    assert shelf.delete("me", "a") is True
    assert shelf.delete("me", "a") is False
    assert shelf.history("me", "b") is None
    assert shelf.find("me", "b") is not None
    assert shelf.named("me", ["in_a"]) == {}


def test_what_is_too_old_is_not_found_and_is_swept_away(make: Make, clock: Clock) -> None:
    shelf = make(ttl_s=100)
    shelf.put("me", kept("a", clock))
    clock.at += 60
    shelf.put("me", kept("b", clock, "a"))
    clock.at += 60
    assert shelf.find("me", "a") is None
    assert shelf.history("me", "b") is None
    assert shelf.named("me", ["in_a", "in_b"]) == {"in_b": b'"in b"'}
    shelf.sweep()
    clock.at -= 60
    assert shelf.find("me", "a") is None
    assert shelf.find("me", "b") is not None


def test_the_oldest_leave_when_it_is_too_much(make: Make, clock: Clock) -> None:
    shelf = make(max_bytes=10_000)
    for index in range(30):
        clock.at += 1
        shelf.put("me", kept(f"r{index}", clock, size=1000))
    shelf.sweep()
    there = [index for index in range(30) if shelf.find("me", f"r{index}")]
    assert there == list(range(there[0], 30))
    assert 6 <= len(there) <= 9


def test_an_id_may_hold_what_a_database_cannot(make: Make, clock: Clock) -> None:
    shelf = make()
    item = KeptItem("i\0d", False, b'"x"')
    shelf.put("me", Kept("r", None, clock(), b"1", (item,)))
    assert shelf.named("me", ["i\0d"]) == {"i\0d": b'"x"'}
    for look in (shelf.find, shelf.inputs, shelf.history, shelf.delete):
        assert not look("me", "r\0")


def test_who_keeps_much_pushes_out_nobody_elses(make: Make, clock: Clock) -> None:
    shelf = make(max_bytes=20_000)
    if isinstance(shelf, MemoryShelf):
        pytest.skip("of the anonymous there is one")
    for name in ("modest", "frugal"):
        shelf.put(name, kept(name, clock, size=3000))
    for index in range(40):
        clock.at += 1
        shelf.put("greedy", kept(f"r{index}", clock, size=1000))
    shelf.sweep()
    assert shelf.find("modest", "modest")
    assert shelf.find("frugal", "frugal")
    there = [index for index in range(40) if shelf.find("greedy", f"r{index}")]
    assert there == list(range(there[0], 40))
    assert 9 <= len(there) <= 13
    for index in range(20):  # nobody's share is fixed: many with little have as much in all
        shelf.put(f"key{index}", kept(f"s{index}", clock, size=300))
    shelf.sweep()
    assert all(shelf.find(f"key{index}", f"s{index}") for index in range(20))
    assert len([index for index in range(40) if shelf.find("greedy", f"r{index}")]) < len(there)


def test_what_lasts_is_there_after_a_restart(make: Make, clock: Clock) -> None:
    shelf = make()
    if isinstance(shelf, MemoryShelf):
        pytest.skip("memory does not last")
    shelf.put("me", kept("a", clock))
    shelf.close()
    assert make().find("me", "a") == b'"body"'


def test_a_shelf_that_does_not_say_its_version_is_of_the_first_one(
    make: Make, clock: Clock
) -> None:
    shelf = make()
    if isinstance(shelf, MemoryShelf):
        pytest.skip("memory does not last")
    assert isinstance(shelf, SqlShelf)
    shelf.put("me", kept("a", clock))
    shelf._db.execute("DROP TABLE kept_steps")
    again = make()
    assert isinstance(again, SqlShelf)
    assert again.find("me", "a") == b'"body"'
    assert version_of(again._db, RESPONSES) == len(STEPS)


def test_a_shelf_of_a_newer_helexa_is_left_alone(make: Make, clock: Clock) -> None:
    shelf = make()
    if isinstance(shelf, MemoryShelf):
        pytest.skip("memory does not last")
    assert isinstance(shelf, SqlShelf)
    shelf._db.execute("INSERT INTO kept_steps (version, name, at) VALUES (9, 'newer', 0)")
    with pytest.raises(OSError, match=r"^the store of responses has version 9, .* a newer helexa"):
        make()


def test_a_step_that_shelves_have_been_through_is_never_changed() -> None:
    """As with the ledger's: whoever adds one adds its checksum."""
    texts = ["\n".join((step.name, *step.sql)) for step in STEPS]
    assert [sha256(text.encode()).hexdigest()[:16] for text in texts] == ["1a720c0de462ba23"]


def test_several_gateways_may_open_one_shelf_at_once(make: Make, clock: Clock) -> None:
    first = make()
    if isinstance(first, MemoryShelf):
        pytest.skip("memory is one gateway's")
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            shelf = make()
            for index in range(5):
                shelf.put("me", kept(f"{name}{index}", clock))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert all(first.find("me", f"{name}4") for name in "abc")
