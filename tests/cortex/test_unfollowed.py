"""Settings that a running gateway does not take over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from helexa.cortex.settings import CortexSettings, load_settings
from helexa.cortex.unfollowed import UnfollowedFile

pytestmark = pytest.mark.anyio


class Log:
    """What was warned of."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = []

    def warning(self, event: str, *, settings: list[str]) -> None:
        self.lines.append(list(settings))


async def test_a_changed_setting_that_waits_for_the_next_start_is_named_and_its_value_is_not(
    tmp_path: Path,
) -> None:
    path, changes = tmp_path / "cortex.toml", 0

    def write(text: str) -> None:
        nonlocal changes
        changes += 1
        path.write_text(text)
        os.utime(path, (changes, changes))

    write("[ledger]\nslice_tokens = 64\n")

    def read() -> CortexSettings:
        return load_settings(path, {}, {}).value

    log = Log()
    file = UnfollowedFile(path, read, read(), cast("Any", log))

    async def told(*, asked: bool = False) -> list[list[str]]:
        log.lines.clear()
        assert await file.refresh(asked=asked) == []
        return log.lines

    assert await told(asked=True) == []
    write('[ledger]\nslice_tokens = 128\n[fleet]\nsecret = "fleet-secret-9000"\n')
    assert await told() == [["ledger.slice_tokens", "fleet.secret"]]
    assert await told() == []
    assert await told(asked=True) == [["ledger.slice_tokens", "fleet.secret"]]
    write('[ledger]\nslice_tokens = "x"\n')  # told of by those who follow the file
    assert await told() == []
    write('[ledger]\nslice_tokens = 64\n[[neurons]]\nname = "n"\nendpoint = "http://n:1"\n')
    assert await told() == []
