"""What a gateway keeps over a restart besides its ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from helexa.core.errors import InsufficientVram
from helexa.core.logging import get_logger
from helexa.cortex.fleet.roster import Roster
from helexa.cortex.remembered import MOST_LESSONS, Memory, Remembered, place, read, write
from helexa.cortex.residency.learned import Learned, Lesson
from helexa.cortex.settings import NeuronSettings

LOG = get_logger()
NODE = NeuronSettings("two", "http://two:1", Path("/ca.pem"))
MEMORY = Memory((NODE,), (Lesson("two", "m", 3.5), Lesson("two", "big", None, 9000)))


class Door:
    def __init__(self) -> None:
        self.open_ = []  # type: ignore[var-annotated]

    def check(self, node: NeuronSettings) -> None:
        pass

    def open(self, node: NeuronSettings) -> None:
        self.open_.append(node.name)

    async def close(self, name: str) -> None:
        self.open_.remove(name)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fleet.json"
    assert read(path, LOG) == Memory()
    write(path, MEMORY)
    assert read(path, LOG) == MEMORY
    assert [file.name for file in path.parent.iterdir()] == ["fleet.json"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_newer_helexa_wrote_besides_costs_no_node(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    write(path, MEMORY)
    newer = msgspec.json.decode(path.read_bytes())
    newer["more"] = newer["nodes"][0]["weight"] = newer["loads"][0]["spread"] = 2
    path.write_bytes(msgspec.json.encode(newer))
    assert read(path, LOG) == MEMORY


def test_a_file_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_bytes(b'{"nodes": 5}')
    assert read(path, LOG) == Memory()
    assert not path.exists()
    assert (tmp_path / "fleet.unreadable").exists()


def test_the_file_is_beside_the_ledger_of_its_gateway(tmp_path: Path) -> None:
    assert place("memory:", 1, {}) is None
    assert place(f"sqlite://{tmp_path}/ledger.db", 1, {}) == tmp_path / "fleet.json"
    shared = place("postgresql://db/x", 31313, {"STATE_DIRECTORY": str(tmp_path)})
    assert shared == tmp_path / "fleet-31313.json"


@pytest.mark.anyio
async def test_every_change_is_written_and_the_last_one_last(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    lessons: list[Lesson] = []
    kept = Remembered(path, lambda: (NODE,), lambda: tuple(lessons), LOG)
    assert await kept.keep()
    assert not path.exists()  # nothing has changed
    running = asyncio.create_task(kept.run())
    for index in range(50):
        lessons.append(Lesson("two", f"m{index}", float(index)))
        kept.changed()
        if index % 7 == 0:
            await kept.keep()
    running.cancel()
    await asyncio.wait([running])
    kept.changed()
    await asyncio.gather(kept.keep(), kept.keep())
    assert read(path, LOG) == Memory((NODE,), tuple(lessons))


@pytest.mark.anyio
async def test_the_file_is_bounded(tmp_path: Path) -> None:
    many = tuple(Lesson("node", f"model-{index}", 1.0) for index in range(MOST_LESSONS + 10))
    kept = Remembered(tmp_path / "fleet.json", tuple, lambda: many, LOG)
    kept.changed()
    await kept.keep()
    assert len(read(tmp_path / "fleet.json", LOG).loads) == MOST_LESSONS


@pytest.mark.anyio
async def test_where_nothing_can_be_written_serving_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Remembered(tmp_path / "file" / "fleet.json", tuple, tuple, LOG)
    kept.changed()
    assert not await kept.keep()
    (tmp_path / "file").unlink()
    assert await kept.keep()  # nothing was lost meanwhile
    assert (tmp_path / "file" / "fleet.json").exists()
    nowhere = Remembered(None, tuple, tuple, LOG)
    nowhere.changed()
    assert await nowhere.keep()


def test_lessons_of_an_earlier_life_are_known_and_learned_from() -> None:
    changes: list[int] = []
    first = Learned(lambda: 0.0)
    first.changed = lambda: changes.append(1)
    first.timed("n", "m", 8.0)
    first.expects("n", "guessed", 99.0)
    first.failed("n", "big", InsufficientVram("no", needed_mb=9000))
    assert len(changes) == 2
    second = Learned(lambda: 0.0)
    second.recall(first.lessons())
    assert second.load_s("n", "m") == 8.0
    assert second.load_s("n", "guessed") is None  # the node will say that again
    assert second.need_mb("n", "big", None) == (9000, False)
    assert second.blocked_until("n", "big") == 0.0
    second.timed("n", "m", 4.0)
    assert second.load_s("n", "m") == 6.0


@pytest.mark.anyio
async def test_added_nodes_are_kept_until_they_are_removed() -> None:
    roster = Roster(Door())
    roster.start([NeuronSettings("one", "http://one:1")])
    await roster.add(NODE)
    assert roster.added() == (NODE,)
    door = Door()
    later = Roster(door)
    later.start([NeuronSettings("one", "http://one:1")], roster.added())
    assert door.open_ == ["one", "two"]
    assert later.origin("two") == "admin"
    await later.remove("two")
    assert later.added() == ()


def test_an_added_node_that_the_file_has_by_now_is_the_files() -> None:
    said: list[tuple[str, str]] = []
    door = Door()
    roster = Roster(door, lambda what, name: said.append((what, name)))
    roster.start([NeuronSettings("two", "http://elsewhere:1")], [NODE])
    assert door.open_ == ["two"]
    assert roster.origin("two") == "file"
    assert said == [("not added again", "two")]
