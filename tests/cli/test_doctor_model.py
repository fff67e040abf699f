"""``helexa doctor MODEL``: the answer in words, its picture, its lines and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from tests.neuron.models import families as known
from tests.neuron.models.families import write_folder

from helexa.cli.app import helexa
from helexa.cli.memory_bar import WIDTH, cells_of, lines_of, parts_of, size
from helexa.cli.outlook import by_node, render
from helexa.core.fleet import Limit
from helexa.core.outlook import Candidate, MemoryUse, Nearest, Outlook, Thinking, ToFetch


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(helexa, ["doctor", *arguments])


def test_the_built_in_model_would_run_on_this_host() -> None:
    command = [sys.executable, "-m", "helexa.cli", "doctor", "helexa/spark"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "runs here, on llamacpp",
        "GGUF is its own format",
        "▓ weights",
        "▒ KV",
        "4 slots",
        "are here",
        "thinking switched by enable_thinking",
        'harness = "llamacpp"',
    ):
        assert words in done.stdout


def test_programs_get_the_same_as_json() -> None:
    done = doctor("helexa/spark", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["engine"]) == (0, True, "llamacpp")
    assert told["limit"]["context"] == told["limit"]["input"] + told["limit"]["output"]


def test_what_does_not_run_exits_with_one_and_says_what_would(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", known.WHISPER)
    done = doctor(str(tmp_path / "m"))
    assert done.exit_code == 1
    assert "turns speech into text" in done.stdout
    write_folder(tmp_path / "n", known.LLAMA_3_1_8B)
    done = doctor(str(tmp_path / "n"), "--harness", "llamacpp")
    assert (done.exit_code, "Take a GGUF of it" in done.stdout) == (1, True)


def test_the_operators_settings_are_counted(tmp_path: Path) -> None:
    (tmp_path / "neuron.toml").write_text("[engines.llamacpp]\nslots = 2\nctx = 1024\n")
    done = doctor("helexa/spark", "--config", str(tmp_path / "neuron.toml"), "--json")
    told = json.loads(done.stdout)
    assert (told["slots"], told["context"]) == (2, 1024)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--quant", "Q4_0"], "are about a MODEL; name one"),
        (["helexa/spark", "--config", "/nowhere.toml"], "/nowhere.toml: there is no such file"),
        (["helexa/spark", "--config", "bad.toml"], "slotz"),
        (["warp:org/m"], "names the unknown source 'warp'"),
        (["helexa/spark", "--endpoint", "http://x", "--config", "bad.toml"], "its own settings"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (tmp_path / "bad.toml").write_text("[engines.llamacpp]\nslotz = 2\n")
    monkeypatch.chdir(tmp_path)
    done = doctor(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr


def test_an_endpoint_that_nobody_listens_at_is_named() -> None:
    done = doctor("helexa/spark", "--endpoint", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "is `helexa neuron` running there" in done.stderr


GPU = MemoryUse(0, "RTX 4090", 24_576, 22_000, 19_952, 5000, 2000, 0, 600)
FITS = Outlook(
    "org/m", True, True, source="hf", format="gguf", architecture="qwen3", quant="Q4_K_M",
    quants=["Q8_0", "Q4_K_M"], parameters=8_200_000_000, weights_mb=5000, context_native=40_960,
    engine="llamacpp", candidates=[
        Candidate("llamacpp", True, "2026.10", why="GGUF is its own format"),
        Candidate("vllm", False, None, "engine_not_installed", "it is not installed"),
    ],
    memory=[GPU, MemoryUse(-1, "host memory", 64_000, 30_000, 27_952, 300, 0, 256, 60)],
    context=32_768, slots=8, kv_cells=65_536, kv_type="f16", limit=Limit(32_768, 24_576, 8192),
    capabilities=["text", "tools", "reasoning"], unsupported=["audio"], tool_call=True,
    reasoning=True, thinking=Thinking(None, True, ["low", "high"]),
    download=ToFetch(5 << 30, 4 << 30, 40e6, True, 107.4, "/cache", 100 << 30),
    sampling={"temperature": 0.6, "top_k": 20.0}, notes=["from the cache"],
)  # fmt: skip


def test_everything_that_is_known_is_shown() -> None:
    text = click.unstyle(render(FITS))
    for words in (
        "org/m  Q4_K_M, gguf, qwen3, 8.2 B weights, 4.9 GiB",
        "✓ llamacpp 2026.10: GGUF is its own format",
        "✗ vllm: it is not installed",
        "device 0 (RTX 4090)",
        "needs 7.4 GiB, 21.5 GiB of 24.0 GiB free",
        "32768 tokens of its own 40960, 8 slots, 65536 cells of f16 KV",
        "a prompt may have 24576 tokens, an answer 8192",
        "4.0 GiB of 5.0 GiB, about 2 min at 40.0 MB/s (measured)",
        "to /cache, where 100.0 GiB are free",
        "always thinks first; reasoning_effort low high",
        "not here, though the model could: audio",
        "its publisher samples with temperature 0.6, top_k 20",
        "from the cache",
    ):
        assert words in text, text


def test_a_terminal_that_cannot_draw_gets_letters() -> None:
    text = click.unstyle(render(FITS, draws=False))
    text.encode("ascii")
    assert "|#####wwwwwwwwwwkkkko...." in text
    assert "w weights 4.9 GiB" in text


def test_a_fleet_is_shown_by_node() -> None:
    absent = Outlook("org/m", False, reason="x", detail="not here", nearest=[Nearest("Take it.")])
    found = {"one": msgspec.to_builtins(FITS), "two": msgspec.to_builtins(absent)}
    lines = by_node(found)
    assert lines[1].split() == ["one", "runs", "llamacpp", "8.0", "GiB", "32768", "8", "4.0", "GiB"]
    assert lines[2].split() == ["two", "never"]
    assert lines[-2:] == ["two: not here", "    Take it."]
    assert by_node({}) == ["no node answers"]


def test_a_node_that_has_the_model_is_not_asked_whether_it_would_run_there() -> None:
    full = Outlook("org/m", False, True, reason="insufficient_vram", detail="needs 8 GiB")
    found = {"one": msgspec.to_builtins(full), "two": msgspec.to_builtins(FITS)}
    lines = by_node(found, ["one"])
    assert lines[1].split() == ["one", "loaded"]
    assert lines[2].split()[:2] == ["two", "runs"]
    assert "needs 8 GiB" not in "\n".join(lines)


def test_the_lines_that_keep_it_are_a_catalogue() -> None:
    lines = render(FITS).partition("models.toml of the gateway:\n")[2]
    found = tomllib.loads(lines)["models"]
    assert found == [{"id": "org/m", "harness": "llamacpp", "quant": "Q4_K_M", "source": "hf"}]


def test_what_would_make_it_fit_is_shown_with_its_lines() -> None:
    short = Outlook(
        "org/m", False, True, "insufficient_vram", "It needs 30000 MiB.",
        memory=[MemoryUse(0, "RTX 4090", 24_576, 24_000, 21_952, 29_000, 500, 0, 500)],
        nearest=[Nearest("It fits with a context of 4096 tokens.",
                         ["[engines.llamacpp]", "ctx = 4096"])],
    )  # fmt: skip
    text = click.unstyle(render(short))
    assert "does not run here now: It needs 30000 MiB." in text
    assert "7.9 GiB short" in text
    assert "    ctx = 4096" in text
    assert "models.toml" not in text


def test_the_bar_shows_each_kind_and_leaves_what_is_free() -> None:
    bar, *rows = (click.unstyle(line) for line in lines_of(GPU))
    legend = "   ".join(rows)
    picture = bar[1 : bar.index("▏")]
    assert len(picture) == WIDTH
    assert [picture.count(glyph) for glyph in "█▓▒╱·"] == [5, 10, 4, 1, 4]
    assert picture.endswith(" " * 20)
    assert "▓ weights 4.9 GiB" in legend
    assert "prompt cache" not in legend
    assert max(map(len, rows)) < 66  # with what stands before them, an 80 column terminal's


def test_what_is_too_much_stands_beyond_the_edge() -> None:
    over = MemoryUse(0, "small", 8000, 8000, 7200, 15_000)
    bar = click.unstyle(lines_of(over)[0])
    inside, _, outside = bar[1:].partition("▏")
    assert (len(inside), outside.split("  ")[0]) == (26, "▓" * 22)


@pytest.mark.parametrize("mb", [0, 1, 5, 999, 20_000])
def test_whatever_is_there_has_a_cell_and_cells_follow_each_other(mb: int) -> None:
    use = MemoryUse(0, "d", 24_000, 23_000, 21_000, mb, mb, mb, mb)
    cells = cells_of(parts_of(use), WIDTH / 24_000)
    assert all((part.mb > 0) == (count > 0) for part, count in cells)


def test_sizes_are_written_as_people_read_them() -> None:
    assert [size(mb) for mb in (0, 5, 999, 1024, 24_576)] == [
        "0 MiB", "5 MiB", "999 MiB", "1.0 GiB", "24.0 GiB"]  # fmt: skip
