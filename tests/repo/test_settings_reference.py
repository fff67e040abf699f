"""The settings reference tells an operator what each key does."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md"


def test_every_key_of_the_settings_reference_says_what_it_does() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 100
    assert [key for key, words in rows if not words.strip()] == []


def test_what_is_absent_is_not_called_by_python_s_name() -> None:
    assert "None" not in PAGE.read_text()
