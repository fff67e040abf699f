"""models.toml: loads whole, is refused whole, and is re-read when it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helexa.core.settings import SettingsError
from helexa.cortex.profiles import ProfileFile, load_profiles
from helexa.cortex.residency.effects import load_request

EVERYTHING = """
[[models]]
id = "Qwen/Qwen3-1.7B"
harness = "llamacpp"
quant = "Q4_K_M"
source = "hf"
vram_mb = 2000
min_devices = 2
min_device_vram_mb = 8000
pinned_on = ["one"]
cost = {input = 0, output = 0.5, cache_read = 0.1, cache_write = 0.2}
capabilities = ["text"]
thinking = "on"
engine = {slots = 2, nested = {deep = true}}
limit = {context = 5}
[[models]]
id = "b"
harness = "vllm"
residency_priority = 7
[aliases]
"helexa/small" = "Qwen/Qwen3-1.7B"
"tiny" = "helexa/spark"
"""


def write(path: Path, text: str) -> Path:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    return path


def test_every_key_of_the_contract_loads(tmp_path: Path) -> None:
    profiles = load_profiles(write(tmp_path / "models.toml", EVERYTHING))
    first = profiles.profile("Qwen/Qwen3-1.7B")
    assert first is not None
    assert first.cost is not None
    assert first.cost.input == 0
    assert first.priority == 1000
    assert profiles.models[1].priority == 7
    assert profiles.models[1].cost is None
    assert profiles.profile("helexa/small") is None


def test_the_engine_may_be_left_to_the_nodes(tmp_path: Path) -> None:
    profiles = load_profiles(write(tmp_path / "models.toml", "[[models]]\nid='a'"))
    assert profiles.models[0].harness is None
    assert load_request(profiles.models[0]).harness is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[models]]\nid='a'\nharness='x'\n[[models]]\nid='a'\nharness='x'", ["models[1]", "'a'"]),
        ("[[models]]\nid='a'\nharness='x'\nvrma_mb=1", ["models[0].vrma_mb"]),
        ("[aliases]\nx = 'nowhere'", ["'x'", "'nowhere'", "[[models]]"]),
        ("[[models]]\nid='org/model'\n[aliases]\nx = 'org/modell'", ["did you mean 'org/model'?"]),
        ("[aliases]\na = 'b'\nb = 'a'", ["'a' points at the alias 'b'", "in a circle"]),
        ("[[models]]\nid='m'\n[aliases]\na='b'\nb='c'\nc='m'", ["'a' points", "write 'm'"]),
        ("[[models]]\nid='a'\nharness='x'\n[aliases]\na = 'a'", ["also a model"]),
        ("[[models]]\nid='a'\nharness='x'\n[aliases]\nb='a'\nc='b'", ["resolves once", "'a'"]),
        ("[[models]]\nid=''", ["models[0].id", "not a name"]),
        ("[[models]]\nid='hf:a/b'", ["models[0].id", "write 'a/b', with source = 'hf:a/b'"]),
        ("[[models]]\nid='a'\n[aliases]\n' '='a'", ["aliases", "not a name"]),
        (
            "[[models]]\nid='a'\ncapabilities=['text', 'visoin']",
            ["models[0].capabilities", "'visoin'", "did you mean vision?"],
        ),
        ("[[models]]\nid='a'\ncapabilities=['singing']", ["known: text, tools, reasoning, vision"]),
        ("[[models]\n", ["TOML"]),
    ],
)
def test_a_catalogue_that_contradicts_itself_is_refused(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_profiles(write(tmp_path / "models.toml", text))
    for word in words:
        assert word in str(caught.value)


def test_a_changed_file_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "models.toml", "[[models]]\nid='a'\nharness='x'")
    told: list[str] = []
    file = ProfileFile.open(path, told.append)
    assert not file.refresh()
    write(path, "[[models]]\nid='b'\nharness='x'")
    assert file.refresh()
    assert [p.id for p in file.current.models] == ["b"]
    write(path, "[[models]]\nid='b'\nharness=5")
    assert not file.refresh()
    assert not file.refresh()
    assert (file.failures, len(told), file.generation) == (1, 1, 1)
    assert [p.id for p in file.current.models] == ["b"]
    path.unlink()
    assert not file.refresh()
    assert file.failures == 2
    write(path, "")
    assert file.refresh()
    assert file.current.models == ()


def test_a_gateway_without_a_catalogue_has_an_empty_one() -> None:
    file = ProfileFile(None)
    assert not file.refresh()
    assert file.current.models == ()
