"""The pages in a real browser; skipped by name where there is no Chromium or nothing was built."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.bench.made import run

from helexa.bench.row import Run
from helexa.bench.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BUILT = ROOT / "src" / "helexa" / "bench" / "web" / "index.html"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(
        not BUILT.exists() or not (WEB / "node_modules").exists(), reason="not built: make web"
    ),
    pytest.mark.slow,  # a browser opens every page: ten to twenty seconds
]


@contextmanager
def served(database: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "helexa.cli", "bench", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--db", str(database)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def browse(url: str, state: str) -> list[str]:
    """What the browser found wrong."""
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as home:
        environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "TMPDIR": home}
        done = subprocess.run(
            ["node", "tests/pages.mjs", url, state, "--quick"],
            cwd=WEB, capture_output=True, text=True, timeout=280, check=False,
            env=environ | {"CHROMIUM": str(CHROMIUM)},
        )  # fmt: skip
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert checks, done.stderr
    assert done.returncode in (0, 1), done.stderr
    return [f"{c['check']}: {c['detail']}" for c in checks if not c["ok"]]


def failing() -> Iterator[Run]:
    """A scenario that broke two builds ago, one that never worked, and many answers."""
    for at, build in enumerate(("1.0+a", "1.1+b", "1.2+c")):
        yield from (run(at * 100.0 + i, build=build) for i in range(3))
        yield from (
            run(
                at * 100.0 + i, build=build, scenario="tools", ok=at == 0,
                error="boom" if at else "", first=None if at else 100.0, rate=None if at else 50.0,
            )
            for i in range(3)
        )  # fmt: skip
    yield run(
        1.0, target="other", build="1.2+c", scenario="concurrency:2", first=None, ok=False,
        error="boom",
    )  # fmt: skip
    for i in range(60):
        target = "old" if i < 10 else "new"
        yield run(float(i), target=target, scenario="capability:rhyme", artifact=f"says {target}")


def test_every_page_shows_its_figures_without_errors_and_is_accessible(tmp_path: Path) -> None:
    database = tmp_path / "bench.sqlite"
    script = ROOT / "scripts" / "bench_seed.py"
    subprocess.run([sys.executable, str(script), str(database), "--runs", "1500"], check=True)
    with served(database) as url:
        assert browse(url, "seeded") == []


def test_what_does_not_work_is_said_on_every_page_that_shows_it(tmp_path: Path) -> None:
    database = tmp_path / "bench.sqlite"
    store = Store(database)
    store.add_many(failing())
    store.close()
    with served(database) as url:
        assert browse(url, "failing") == []


def test_an_empty_database_is_said_in_words_on_every_page(tmp_path: Path) -> None:
    database = tmp_path / "bench.sqlite"
    program = "import sys; from pathlib import Path; from helexa.bench.store.store import Store; "
    subprocess.run(
        [sys.executable, "-c", f"{program}Store(Path(sys.argv[1])).close()", str(database)],
        check=True,
    )
    with served(database) as url:
        assert browse(url, "empty") == []


def test_the_apis_own_errors_are_shown_on_every_page(tmp_path: Path) -> None:
    with served(tmp_path / "nothing-there.sqlite") as url:
        assert browse(url, "broken") == []
