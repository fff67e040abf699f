"""Write what the tests compare llama.cpp with: token ids and rendered prompts.

    python scripts/spark/golden.py

The ids come from `tokenizers`, the prompts from jinja2 set up as transformers sets it up, so that a
test without either can still tell whether the two worlds agree.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from data import template, tokenizer
from split import Draw
from values import exotic, filler, path

TARGET = Path(__file__).parents[2] / "tests/spark/golden"

TEXTS = (
    "", " ", "  two  spaces ", "\n", "\n\n\n", "\t tab\r\nline", "Hello, world!", "hello_world",
    "/etc/hosts", "src/app.py", "It's Bob's; they'll say I'm late.", "1234567890 3.14 -5 10%",
    '{"name": "read_file", "arguments": {"path": "/tmp/a b.txt"}}', '{"a":[1,2,{"b":null}]}',
    "Grüße aus Zürich", "naïve café", "Привет, мир", "日本語のテスト", "한국어", "مرحبا",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 combining", "\u00a0nbsp\u2003em", "ﬁ ligature", "x²+y²≤z½", "CamelCaseName",
    "def f(x):\n    return x  # comment\n", "<think>\n\n</think>\n\n",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<tool_call>\n{}\n</tool_call>", "a<think>b", "\x00\x01\x7f", "supercalifragilistic",
    "AAAA aaaa ____ ----", "https://example.com/a?b=c&d=e#f", "foo@bar.org", "«quotes» “here”",
)  # fmt: skip

READ = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file.",
        "parameters": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {
                "limit": {"type": "integer", "minimum": 1},
                "path": {"type": "string", "description": "Where it is."},
                "unit": {"enum": ["line", "byte"]},
                "extra": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    },
}
BARE = {"type": "function", "function": {"name": "get_time"}}


def call(name: str, arguments: dict[str, Any], identity: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": identity, "type": "function", "function": function}


def requests() -> dict[str, dict[str, Any]]:
    """Chat requests by name, as a client sends them."""
    hello = {"role": "user", "content": "Hello"}
    asked = {"role": "user", "content": "Read the file /etc/hosts and get the time"}
    both = [call("read_file", {"path": "/etc/hosts"}, "a"), call("get_time", {}, "b")]
    calling = {"role": "assistant", "content": None, "tool_calls": both}
    results = [
        {"role": "tool", "tool_call_id": "a", "content": "127.0.0.1 localhost"},
        {"role": "tool", "tool_call_id": "b", "content": "12:00"},
    ]
    system = {"role": "system", "content": "Be brief."}
    thought = {"role": "assistant", "content": "Hi!", "reasoning_content": "The user greets me."}
    return {
        "plain": {"messages": [hello]},
        "no thinking": {"messages": [hello], "chat_template_kwargs": {"enable_thinking": False}},
        "system": {"messages": [system, hello, thought, hello]},
        "long system": {"messages": [{"role": "system", "content": "word " * 500}, hello]},
        "tools": {"messages": [system, asked], "tools": [READ, BARE]},
        "results": {"messages": [asked, calling, *results], "tools": [READ, BARE]},
        "thoughts kept": {
            "messages": [asked, calling | {"reasoning_content": "Two calls."}, *results],
            "tools": [READ, BARE],
        },
    }


def rendered(request: dict[str, Any]) -> str:
    """Render as transformers does, after what engines do first: arguments become objects."""
    messages = json.loads(json.dumps(request["messages"]))
    for message in messages:
        for item in message.get("tool_calls", ()):
            item["function"]["arguments"] = json.loads(item["function"]["arguments"])
    options = request.get("chat_template_kwargs", {})
    tools = request.get("tools")
    return template().render(messages=messages, tools=tools, add_generation_prompt=True, **options)


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    draw = Draw(random.Random(2))
    texts = [*TEXTS, *(exotic(draw) for _ in range(40)), *(path(draw) for _ in range(20))]
    texts += [filler(draw, 4) for _ in range(20)]
    tokens = [{"text": text, "ids": tokenizer().encode(text).ids} for text in texts]
    prompts = [
        {"name": name, "request": request, "prompt": rendered(request)}
        for name, request in requests().items()
    ]
    for name, content in {"tokens": tokens, "prompts": prompts}.items():
        text = json.dumps(content, indent=1, ensure_ascii=True)
        (TARGET / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
