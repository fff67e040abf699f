"""The project's own figures by its own bench: one sweep over gateway, node and bare engine.

Writes a bench database and prints its report. The one of the last release is examples/bench.sqlite:
`helexa bench serve --db examples/bench.sqlite` shows it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
from kit.household import start_household
from kit.process import Process, end_cleanly

from helexa.spark import gguf_path

BARE = Path(__file__).resolve().parents[1] / "tests" / "bench" / "bare_llama.py"
SETTINGS = """
[bench]
samples_per_version = {samples}
iteration_pause_secs = 0.2
db_path = {db!r}
[scenarios]
prompt_sizes = [32, 256]
concurrency_levels = [1, 2, 4]
prefix_sizes = [128]
names = ["tools", "structured", "cold"]
max_tokens = 96
"""
TARGET = '[[targets]]\nname = "{}"\nkind = "{}"\nendpoint = "{}"\nlabel = "2 CPU cores"\n{}'


@click.command(help=__doc__)
@click.option("--db", type=click.Path(path_type=Path), default=Path("out/bench.sqlite"))
@click.option("--samples", default=5, show_default=True)
def main(db: Path, samples: int) -> None:
    end_cleanly()
    db.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        bare = Process([sys.executable, str(BARE), str(gguf_path())],
                       Path(folder) / "bare.log", ready_line=True)  # fmt: skip
        household = start_household(Path(folder))
        node = household.node_url
        try:
            config = Path(folder) / "bench.toml"
            config.write_text(
                SETTINGS.format(samples=samples, db=str(db.resolve()))
                + TARGET.format("node", "neuron", node, 'models = ["helexa/spark"]\n')
                + TARGET.format("gateway", "openai", f"http://127.0.0.1:{household.port}", "")
                + TARGET.format("llama.cpp", "openai", bare.ready()["url"], 'build = "bare"\n')
            )
            command = [sys.executable, "-m", "helexa.cli", "bench"]
            subprocess.run([*command, "once", "--config", str(config)], check=False)
        finally:
            household.process.stop()
            bare.stop()
    subprocess.run([*command, "report", "--db", str(db)], check=True)


if __name__ == "__main__":
    main()
