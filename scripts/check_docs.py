"""Check the documentation against the repository: links, code blocks, commands, decisions."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from helexa.acp.settings import AcpSettings
from helexa.bench.settings import BenchSettings
from helexa.cli.app import COMMANDS, helexa
from helexa.cli.cortex import cortex_script
from helexa.core.settings import SettingsError, convert
from helexa.cortex.profiles import Profiles
from helexa.cortex.settings import CortexSettings
from helexa.neuron.settings import NeuronSettings

ROOT = Path(__file__).resolve().parents[1]
SKIP = {".venv", ".venv-vllm", ".git", "build", "dist", "node_modules"}
KINDS = {
    "cortex.toml": CortexSettings,
    "models.toml": Profiles,
    "neuron.toml": NeuronSettings,
    "helexa-acp.toml": AcpSettings,
    "helexa-bench.toml": BenchSettings,
}
LONGEST_DECISION = 40


class Block(NamedTuple):
    """A fenced code block."""

    line: int
    language: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file of the repository."""
    return sorted(p for p in ROOT.rglob("*.md") if not SKIP & set(p.relative_to(ROOT).parts))


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield Block(text[: match.start()].count("\n") + 1, match[1], match[2])


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {word.strip().replace(" ", "-") for word in words}


def check_links(page: Path, text: str) -> Iterator[str]:
    """Relative links that lead nowhere."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield f"link to {target}, which does not exist"
        elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
            yield f"link to {target}: there is no such heading"


def check_block(block: Block) -> Iterator[str]:
    """What is wrong with a code block in a language we can read."""
    try:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, "block", "exec")
        elif block.language == "toml":
            table = tomllib.loads(block.text)
            for name, kind in KINDS.items():
                if block.text.startswith(f"# {name}"):
                    kinds: Any = kind
                    convert(table, kinds, name)
        elif block.language in ("bash", "sh", "console"):
            yield from check_commands(block.text)
    except (ValueError, SyntaxError, SettingsError) as error:
        yield f"line {block.line}: {error}"


def check_commands(text: str) -> Iterator[str]:
    """Commands and options that do not exist."""
    makefile = (ROOT / "Makefile").read_text()
    for line in text.replace("\\\n", " ").splitlines():
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[:1] == ["make"]:
            for target in words[1:2]:
                if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                    yield f"`{line.strip()}`: the Makefile has no {target}"
        elif words and words[0] in ("helexa", "cortex"):
            yield from check_helexa(line.strip(), words)


def check_helexa(line: str, words: list[str]) -> Iterator[str]:
    """One command line of ours."""
    command: click.Command | None = helexa if words[0] == "helexa" else cortex_script
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = command.get_command(click.Context(command), rest[0])
        rest = rest[1:]
    if command is None:
        yield f"`{line}`: there is no such command"
        return
    known = {"--help"} | {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    for word in rest:
        if word.startswith("--") and word.split("=")[0] not in known:
            yield f"`{line}`: there is no option {word}"


def check_decisions() -> Iterator[str]:
    """Each decision is short and listed."""
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    for file in sorted(folder.glob("*.md")):
        if file.name == "README.md":
            continue
        if len(file.read_text().splitlines()) > LONGEST_DECISION:
            yield f"{file.relative_to(ROOT)}: longer than {LONGEST_DECISION} lines"
        if (times := listed.count(f"({file.name})")) != 1:
            yield f"{file.relative_to(ROOT)}: listed {times} times in docs/decisions/README.md"


def check_index() -> Iterator[str]:
    """Every page of docs/ is reachable from docs/README.md."""
    index = (ROOT / "docs" / "README.md").read_text()
    for file in sorted((ROOT / "docs").glob("*.md")):
        if file.name != "README.md" and f"({file.name})" not in index:
            yield f"docs/{file.name}: not listed in docs/README.md"


def main() -> int:
    """Run every check; the exit status."""
    problems = [*check_decisions(), *check_index()]
    for page in pages():
        text = page.read_text()
        found = list(check_links(page, text))
        for block in blocks(text):
            found += check_block(block)
        problems += [f"{page.relative_to(ROOT)}: {words}" for words in found]
    for problem in problems:
        print(f"docs: {problem}", file=sys.stderr)
    print(f"docs: {len(pages())} pages, {len(COMMANDS)} commands, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
