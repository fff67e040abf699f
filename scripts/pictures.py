"""Draw the pictures of the documentation from what the programs really show.

    python scripts/pictures.py [terminal] [bench]

``terminal`` runs a stack on free ports and writes what a person types and sees as SVG; ``bench``
photographs the bench's pages with Chromium (a database of made-up runs, so that there is a fleet
to see). Without a word, both.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
HELEXA = Path(sys.executable).parent / "helexa"
COLUMNS = 110
START_S = 60.0
TYPED = (
    ("ask", "--timings", "What is the capital of France?"),
    ("fleet", "status"),
    ("doctor", "helexa/spark"),
)
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
PAGES = {"bench-overview": "/", "bench-trends": "/trends"}


@contextmanager
def served(*words: str, environ: dict[str, str]) -> Iterator[dict[str, Any]]:
    """``helexa`` with these words until the block ends; what its ready line says."""
    command = [str(HELEXA), *words, "--log-level", "error"]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
    )
    assert child.stdout is not None
    try:
        if not select.select([child.stdout], [], [], START_S)[0]:
            sys.exit(f"{' '.join(command)} did not start within {START_S:.0f} s")
        yield json.loads(child.stdout.readline())
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(START_S)


def seen(words: tuple[str, ...], environ: dict[str, str]) -> str:
    """What a command shows on a terminal, colours and all."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [str(HELEXA), *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    found = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # a terminal that nobody has open any more
            break
        if not piece:
            break
        found += piece
    os.close(ours)
    if child.wait(START_S):
        sys.exit(f"helexa {' '.join(words)} failed:\n{found.decode()}")
    return found.decode().replace("\r\n", "\n")


def terminal(scratch: Path) -> None:
    """``docs/images/terminal.svg``."""
    environ = dict(os.environ, XDG_STATE_HOME=str(scratch), COLUMNS=str(COLUMNS), TERM="xterm")
    console = Console(record=True, width=COLUMNS, file=(scratch / "shown").open("w"))
    with served(
        "up", "--port", "0", "--neuron-port", "0", "--metrics-port", "0", environ=environ
    ) as ready:
        environ["HELEXA_ENDPOINT"] = ready["url"]
        seen(("ask", "Hello"), environ)  # the first answer of an engine is its slowest
        for words in TYPED:
            typed = " ".join(f"'{word}'" if " " in word else word for word in words)
            console.print(Text.assemble(("$ ", "dim"), (f"helexa {typed}", "bold")))
            console.print(Text.from_ansi(seen(words, environ).rstrip("\n")))
            console.print()
    drawn = console.export_svg(title="helexa")
    own = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # else it asks a font server
    (IMAGES / "terminal.svg").write_text(own)


def bench(scratch: Path) -> None:
    """``docs/images/bench-*.png``."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    database = scratch / "bench.sqlite"
    seed = [sys.executable, str(ROOT / "scripts" / "bench_seed.py"), str(database)]
    subprocess.run(seed, check=True, stdout=subprocess.DEVNULL)
    with served(
        "bench", "serve", "--db", str(database), "--port", "0", environ=dict(os.environ)
    ) as ready:
        for name, path in PAGES.items():
            shot = IMAGES / f"{name}.png"
            subprocess.run(
                [chromium, *BROWSER, f"--user-data-dir={scratch}/browser", "--window-size=1200,900",
                 "--virtual-time-budget=8000", f"--screenshot={shot}", ready["url"] + path],
                check=True, stderr=subprocess.DEVNULL, timeout=120,
            )  # fmt: skip


@click.command(help=__doc__)
@click.argument("which", nargs=-1, type=click.Choice(["terminal", "bench"]))
def main(which: tuple[str, ...]) -> None:
    IMAGES.mkdir(exist_ok=True)
    for draw in (terminal, bench):
        if not which or draw.__name__ in which:
            with tempfile.TemporaryDirectory(prefix="helexa-pictures-") as scratch:
                draw(Path(scratch))


if __name__ == "__main__":
    main()
