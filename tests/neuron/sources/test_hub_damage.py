"""Files from a hub that break off, come damaged or change, or whose hub says odd things."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.neuron.sources.rig import WEIGHTS, Stand
from tests.neuron.sources.test_hub import gguf

from helexa.core.errors import ServiceUnavailable
from helexa.neuron.sources.fetching.job import Job
from helexa.neuron.sources.fetching.transfer import failure, incomplete
from helexa.neuron.sources.hub import hub
from helexa.neuron.sources.hub.hub import DamagedDownload


def test_a_connection_that_breaks_in_mid_file_is_resumed_where_it_broke(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.cut_after.extend([1_000_000, 500_000, 0])
    path = stand.fetch("org/m-GGUF")
    assert path.read_bytes() == b"Q8_0" + WEIGHTS
    ranges = [r for _, name, r in stand.hub.served.requests if name.startswith("/content/")]
    assert [r for r in ranges if r] == [
        "bytes=1000000-", "bytes=1500000-", "bytes=1500000-",
    ]  # fmt: skip
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == len(WEIGHTS) + 4, "no byte twice"


def test_a_hub_without_ranges_costs_bytes_and_nothing_else(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.ranges = False
    stand.hub.faults.cut_after.append(1_000_000)
    assert stand.fetch("org/m-GGUF").read_bytes() == b"Q8_0" + WEIGHTS


def test_a_hub_that_keeps_breaking_is_given_up_and_what_arrived_is_kept(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.cut_after.extend([1_000_000, *[0] * 10])
    with pytest.raises(ServiceUnavailable, match=r"ended after 1000000 of.*arrived is kept"):
        stand.fetch("org/m-GGUF")
    listing = stand.describe("org/m-GGUF")
    assert listing.files[0].have == 1_000_000
    assert listing.bytes_missing == len(WEIGHTS) + 4 - 1_000_000
    stand.hub.faults.cut_after.clear()
    stand.fetch("org/m-GGUF")
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == len(WEIGHTS) + 4


def test_a_disk_that_is_full_in_mid_file_lacks_what_has_not_arrived(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf(stand, "Q8_0")

    async def filled(job: Job, *_: object) -> None:
        (file,) = job.then
        part = incomplete(file.blob)
        part.parent.mkdir(parents=True)
        part.write_bytes(bytes(1_000_000))
        raise failure(file, "full", "the disk is full")

    monkeypatch.setattr(hub, "download", filled)
    with pytest.raises(ServiceUnavailable, match="needs 2 MB more") as refused:
        stand.fetch("org/m-GGUF")
    assert refused.value.extras["bytes_missing"] == len(WEIGHTS) + 4 - 1_000_000


def test_a_damaged_file_is_fetched_once_more(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.flipped = 1
    assert stand.fetch("org/m-GGUF").read_bytes() == b"Q8_0" + WEIGHTS
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == 2 * (len(WEIGHTS) + 4)


def test_a_file_that_is_damaged_every_time_is_refused_for_good(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.flipped = 100
    with pytest.raises(DamagedDownload, match=r"m-Q8_0\.gguf is not what its hub says.*sha256:"):
        stand.fetch("org/m-GGUF")
    assert DamagedDownload.lasting
    assert stand.hub.served.bytes["m-Q8_0.gguf"] == 2 * (len(WEIGHTS) + 4)
    assert not list(stand.cache.rglob("*.incomplete"))


def test_what_an_earlier_life_left_damaged_is_noticed(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.cut_after.extend([1_000_000, *[0] * 10])
    with pytest.raises(ServiceUnavailable):
        stand.fetch("org/m-GGUF")
    stand.hub.faults.cut_after.clear()
    (part,) = stand.cache.rglob("*.incomplete")
    part.write_bytes(bytes(1_000_000))
    assert stand.fetch("org/m-GGUF").read_bytes() == b"Q8_0" + WEIGHTS


def test_a_small_file_is_verified_too(stand: Stand) -> None:
    stand.write("org/m/config.json", b"{}" * 100)
    stand.write("org/m/model.safetensors", WEIGHTS)
    stand.hub.faults.flipped = 1
    assert (stand.fetch("org/m") / "config.json").read_bytes() == b"{}" * 100


def test_an_empty_file_is_fetched_too(stand: Stand) -> None:
    stand.write("org/m/config.json", b"{}")
    stand.write("org/m/merges.txt", b"")
    stand.write("org/m/model.safetensors", WEIGHTS)
    assert (stand.fetch("org/m") / "merges.txt").read_bytes() == b""


@pytest.mark.parametrize("tag", ["../../../../out", "/{outside}/out", "a/../../../../out", ".."])
def test_whatever_a_hub_calls_a_content_it_stays_in_the_cache(
    stand: Stand, tmp_path: Path, tag: str
) -> None:
    stand.write("org/m/config.json", b"{}")
    stand.write("org/m/model.safetensors", WEIGHTS)
    stand.hub.faults.blob_id = tag.format(outside=tmp_path)
    assert (stand.fetch("org/m") / "config.json").read_bytes() == b"{}"
    repository = stand.cache / "models--org--m"
    assert (stand.fetch("org/m") / "config.json").resolve().parent == repository / "blobs"
    assert not list(tmp_path.rglob("out*"))


@pytest.mark.parametrize("sha", ["../../../out", "/tmp/out", "..", "a b"])
def test_a_commit_that_is_none_is_not_believed(stand: Stand, sha: str) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.sha = sha
    with pytest.raises(ServiceUnavailable, match="no hub"):
        stand.fetch("org/m-GGUF")


def test_a_file_that_changes_while_it_is_fetched_is_fetched_as_it_is_now(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    fresh = b"new!" + bytes(reversed(WEIGHTS))
    stand.hub.faults.swap_at, stand.hub.faults.swap_with = 1_000_000, fresh
    assert stand.fetch("org/m-GGUF").read_bytes() == fresh


def test_a_hub_whose_lists_say_little_is_asked_file_by_file(stand: Stand) -> None:
    gguf(stand, "Q8_0")
    stand.hub.faults.lists_digests = False
    listing = stand.describe("org/m-GGUF")
    assert listing.bytes_total == len(WEIGHTS) + 4
    assert listing.files[0].digest.startswith("sha256:")
    assert stand.fetch("org/m-GGUF").read_bytes() == b"Q8_0" + WEIGHTS
