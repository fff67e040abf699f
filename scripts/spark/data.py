"""Training examples: a conversation rendered with the chat template, and what of it to learn.

    python scripts/spark/data.py --seed 1 --count 5

prints conversations. The same seed gives the same conversations.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conversation import WEIGHTS, Conversation, conversations, converse
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment
from split import Draw
from tokenizers import Tokenizer
from values import ALL, invented, path

HERE = Path(__file__).parent
TOKENIZER = HERE.parents[1] / "src/helexa/spark/model/hf/tokenizer.json"
COPY_SHARE = 0.08


@dataclass(frozen=True, slots=True)
class Example:
    ids: list[int]
    mask: list[bool]  # True where the token is to be learned


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER))


@cache
def template() -> Template:
    """Compile the chat template as transformers does."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string((HERE / "chat_template.jinja").read_text())


def render(conversation: Conversation, drop_reasoning: bool = False, **options: Any) -> str:
    """The text of a conversation, exactly as an engine renders it."""
    messages = []
    for position, message in enumerate(conversation.messages):
        final = position == len(conversation.messages) - 1
        kept = dict(message)
        if not conversation.thinking or (drop_reasoning and not final):
            kept.pop("reasoning_content", None)
        messages.append(kept)
    schemas = [tool.schema() for tool in conversation.tools] or None
    return template().render(messages=messages, tools=schemas, **options)


def encode(text: str, thinking: bool) -> Example:
    """Mark what the assistant says: all of it, but not the block that switches thinking off.

    Earlier answers are rendered without their thoughts, so their first token is not learned:
    after `assistant` the model must open `<think>` whenever it is free to.
    """
    ids: list[int] = tokenizer().encode(text).ids
    ids.pop()  # the line break after the last <|im_end|>, which is never generated
    vocabulary: dict[str, int] = tokenizer().get_vocab()
    start, end, think, done, assistant = (
        vocabulary[entry]
        for entry in ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "assistant")
    )
    mask = [False] * len(ids)
    position = 0
    while position < len(ids):
        if ids[position] == start and ids[position + 1] == assistant:
            first = position + 3
            stop = ids.index(end, first)
            if ids[first] != think:
                first += 1
            elif not thinking:
                first = ids.index(done, first) + 2
            mask[first : stop + 1] = [True] * (stop + 1 - first)
            position = stop
        position += 1
    return Example(ids, mask)


def copying(draw: Draw) -> Example:
    """A sequence and its copy; the copy is learned. It teaches attention to look back."""
    size = draw.between(2, 24)
    if draw.chance(0.25):
        ids = [draw.between(0, 2500) for _ in range(size)]
        return Example(ids + ids, [False] * (size + 1) + [True] * (size - 1))
    pool = ALL if draw.chance(0.7) else draw.several(ALL, 6)
    parts = [draw.pick(pool) if draw.chance(0.85) else invented(draw) for _ in range(size)]
    if draw.chance(0.15):
        parts = [path(draw) for _ in range(draw.between(1, 5))]
    text = draw.pick((" ", " ", " ", ", ", "_", "/", ". ", "\n")).join(parts)
    between = draw.pick(("\n\n", '"', ': "', "<|im_end|>\n<|im_start|>assistant\n"))
    encode_text = tokenizer().encode
    first, middle, last = (encode_text(t).ids for t in (text, between, "<|im_end|>"))
    silent = len(first) + len(middle)
    return Example(first + middle + first + last, [False] * silent + [True] * (len(first) + 1))


def example(
    rng: random.Random, task: str | None = None, held_out: bool = False, stage: str = "all"
) -> Example:
    """Draw one example: of the task given, or of any."""
    draw = Draw(rng, held_out)
    if stage == "copy" or (task is None and draw.chance(COPY_SHARE)):
        return copying(draw)
    task = task or rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    conversation = converse(draw, task)
    text = render(conversation, drop_reasoning=draw.chance(0.4))
    found = encode(text, conversation.thinking)
    if held_out:
        return last_answer(found)
    return found


def last_answer(item: Example) -> Example:
    """Keep only the final answer in the mask, for scoring."""
    start = len(item.mask) - 1
    while start > 0 and item.mask[start - 1]:
        start -= 1
    return Example(item.ids, [i >= start and marked for i, marked in enumerate(item.mask)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--held-out", action="store_true")
    options = parser.parse_args()
    stream = conversations(options.seed, options.held_out)
    for _ in range(options.count):
        print(render(next(stream)), end="\n---\n")


if __name__ == "__main__":
    main()
