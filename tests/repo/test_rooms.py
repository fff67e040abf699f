from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "helexa"
PACKAGES = sorted(SOURCE.rglob("__init__.py"))


@pytest.mark.parametrize("file", PACKAGES, ids=lambda f: str(f.parent.relative_to(SOURCE)))
def test_every_room_says_what_it_is_for(file: Path) -> None:
    said = ast.get_docstring(ast.parse(file.read_text()))
    assert said
    assert len(said.split()) >= 8


@pytest.mark.parametrize("name", ["cortex", "neuron", "relay", "wire", "core", "cli", "spark"])
def test_every_room_of_the_picture_exists(name: str) -> None:
    assert (SOURCE / name / "__init__.py").is_file()
