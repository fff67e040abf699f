from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MIB = 1 << 20


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is temporary goes."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scratch: Path) -> tuple[zipfile.ZipFile, str]:
    """A wheel, and what was said while it was made."""
    folder = tmp_path_factory.mktemp("dist")
    given = {"HELEXA_BUILD_SHA": COMMIT, "SOURCE_DATE_EPOCH": "1700000000", "TMPDIR": str(scratch)}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=True,
    )
    return zipfile.ZipFile(next(folder.glob("helexa-*.whl"))), done.stderr


@pytest.fixture(scope="module")
def wheel(made: tuple[zipfile.ZipFile, str]) -> zipfile.ZipFile:
    return made[0]


def test_a_wheel_knows_its_commit_and_its_time(wheel: zipfile.ZipFile) -> None:
    assert json.loads(wheel.read("helexa/_build.json")) == {
        "git_sha": COMMIT[:12],
        "git_sha_long": COMMIT,
        "git_dirty": False,
        "build_timestamp": "2023-11-14T22:13:20Z",
    }


def test_building_leaves_the_source_tree_as_it_was_and_nothing_behind(
    wheel: zipfile.ZipFile, scratch: Path
) -> None:
    assert not (ROOT / "src" / "helexa" / "_build.json").exists()
    assert list(scratch.iterdir()) == []


def test_a_wheel_carries_the_package_its_model_and_its_licence_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = wheel.namelist()
    assert "helexa/py.typed" in names
    assert "helexa/spark/model/spark.gguf" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    parts = {"helexa", "helexa-0.1.0.dist-info", "helexa-0.1.0.data"}
    assert {name.split("/")[0] for name in names} == parts
    assert not [name for name in names if "__pycache__" in name]


def test_a_wheel_brings_what_an_operator_copies_into_place(wheel: zipfile.ZipFile) -> None:
    for folder, place in (("packaging", "packaging"), ("examples/config", "config")):
        ours = {
            f"helexa-0.1.0.data/data/share/helexa/{place}/{file.relative_to(ROOT / folder)}"
            for file in (ROOT / folder).rglob("*")
            if file.is_file()
        }
        assert ours
        assert ours <= set(wheel.namelist())


def test_the_built_in_model_stays_small(wheel: zipfile.ZipFile) -> None:
    model = [i.file_size for i in wheel.infolist() if i.filename.startswith("helexa/spark/model/")]
    assert sum(model) <= 12 * MIB


def test_a_wheel_without_the_pages_of_the_bench_is_warned_of_and_one_with_them_carries_them(
    made: tuple[zipfile.ZipFile, str],
) -> None:
    wheel, said = made
    built = (ROOT / "src/helexa/bench/web/index.html").is_file()
    assert ("helexa/bench/web/index.html" in wheel.namelist()) == built
    assert ("without the pages of the bench" in said) != built


def test_every_command_is_installed(wheel: zipfile.ZipFile) -> None:
    name = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    for script in ("helexa", "cortex", "neuron", "helexa-bench", "helexa-acp"):
        assert f"\n{script} = " in wheel.read(name).decode()
