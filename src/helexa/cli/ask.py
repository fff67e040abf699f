"""``helexa ask``: one question or a conversation with a model of a running gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from helexa.cli.options import endpoint_options, json_option, version_option

SILENCE_S = 120.0
"""The gateway says something every second; longer than this it is gone."""


@dataclass(slots=True)
class Answer:
    """What a model has said so far."""

    text: str = ""
    finish: str | None = None
    cut: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    def take(self, chunk: dict[str, Any]) -> str:
        """Keep one chunk of the stream; the text it adds."""
        self.usage = chunk.get("usage") or self.usage
        self.timings |= chunk.get("timings") or {}
        self.cut = (chunk.get("helexa") or {}).get("finish", self.cut)
        added = ""
        for choice in chunk.get("choices", []):
            added += choice.get("delta", {}).get("content") or ""
            self.finish = choice.get("finish_reason") or self.finish
            self.cut = (choice.get("helexa") or {}).get("finish", self.cut)
        self.text += added
        return added


@click.command(name="ask")
@click.argument("prompt", metavar="[PROMPT]...", nargs=-1)
@click.option("--model", help="Model to ask.  [default: the first that is loaded]")
@click.option("--system", help="Instructions that go before the prompt.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens.")
@click.option("--timings", is_flag=True, help="Print timings on stderr.")
@endpoint_options
@json_option
@version_option
def ask_command(
    prompt: tuple[str, ...],
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    timings: bool,
    endpoint: str,
    key: str | None,
    as_json: bool,
) -> None:
    """Ask a model of a running gateway, and print the answer as it is made.

    PROMPT may come on stdin instead. On a terminal, without one, it is a conversation until
    Ctrl-D.

    \b
      helexa ask 'What is the capital of France?'
      helexa ask --model Qwen/Qwen3-8B --system 'Answer in German.' < letter.txt
    """
    body: dict[str, Any] = {"model": model or _first(endpoint, key)}
    body["messages"] = [] if system is None else [{"role": "system", "content": system}]
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if not prompt and sys.stdin.isatty():
        _converse(endpoint, key, body)
        return
    text = " ".join(prompt) or sys.stdin.read()
    if not text.strip():
        raise click.UsageError("there is no prompt; give one, or send it on stdin")
    body["messages"].append({"role": "user", "content": text})
    answer = _say(endpoint, key, body, quiet=as_json)
    if as_json:
        shown = {"model": body["model"], "answer": answer.text, "finish_reason": answer.finish}
        click.echo(json.dumps(shown | {"usage": answer.usage, "timings": answer.timings}))
    elif timings:
        click.echo(_took(answer), err=True)


def _first(endpoint: str, key: str | None) -> str:
    """The model that is loaded already, else the first that can chat."""
    from helexa.cli.client_config import listed_models

    listed = listed_models(endpoint, key)
    return str(next((m for m in listed if m.get("loaded")), listed[0])["id"])


def _converse(endpoint: str, key: str | None, body: dict[str, Any]) -> None:
    """Question by question, with all that was said before."""
    with suppress(ImportError):
        import readline  # noqa: F401 - its import gives the prompt a history
    click.echo(f"{body['model']}. Ctrl-C stops an answer, Ctrl-D ends.", err=True)
    messages = body["messages"]
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)
            return
        if not text.strip():
            continue
        messages.append({"role": "user", "content": text})
        try:
            answer = _say(endpoint, key, body)
        except click.ClickException as error:
            error.show()
            messages.pop()
        except KeyboardInterrupt:
            click.echo()
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer.text})


def _say(endpoint: str, key: str | None, body: dict[str, Any], *, quiet: bool = False) -> Answer:
    """Ask, and write the answer to stdout as it comes; why it is shorter than it should be goes
    to stderr.

    Raises:
        click.ClickException: It was refused, or broke off; the message is the gateway's.
    """
    answer = Answer()
    waiting = _Waiting()
    try:
        for chunk in _chunks(endpoint, key, body, waiting):
            added = answer.take(chunk)
            if not quiet:
                waiting.clear()
                click.echo(added, nl=False)
                sys.stdout.flush()
    finally:
        waiting.clear()
        if answer.text and not quiet:
            click.echo()
    if answer.finish == "length" and not quiet:
        click.echo(f"cut: {answer.cut or 'it reached the longest answer'}", err=True)
    return answer


def _chunks(
    endpoint: str, key: str | None, body: dict[str, Any], waiting: _Waiting
) -> Iterator[dict[str, Any]]:
    from helexa.cli.door import refusal
    from helexa.cli.remote import lines_of

    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    status, lines = lines_of(endpoint, "/v1/chat/completions", asked, key=key, timeout=SILENCE_S)
    with closing(lines):
        if status != 200:
            raise click.ClickException(refusal(status, b"".join(lines)))
        for line in lines:
            if line.startswith(b": helexa "):
                waiting.show(line[9:])
            elif line.startswith(b"data: [DONE]"):
                return
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise click.ClickException(refusal(200, line[6:]))
                yield chunk
    raise click.ClickException("The answer broke off; the gateway's log says why.")


class _Waiting:
    """On a terminal, how long a request for a cold model waits still: one line, gone after it."""

    def __init__(self) -> None:
        self._length = 0

    def show(self, comment: bytes) -> None:
        """What the gateway said, in place of what stood there."""
        told = json.loads(comment)
        if not sys.stderr.isatty() or "position" not in told:
            return
        eta = told.get("eta_s")
        words = "" if eta is None else f", ready in about {eta:.0f} s"
        line = f"waiting for the model, place {told['position']}{words}"
        self.clear()
        self._length = len(line)
        click.echo(f"{line}\r", err=True, nl=False)

    def clear(self) -> None:
        """Write blanks over it, which every terminal understands; idempotent."""
        if self._length:
            click.echo(" " * self._length + "\r", err=True, nl=False)
            self._length = 0


def _took(answer: Answer) -> str:
    timings, usage = answer.timings, answer.usage
    ms = timings.get("predicted_ms") or 0.0
    speed = f", {timings['predicted_n'] / ms * 1000:.0f} tokens/s" if ms else ""
    return (
        f"{usage.get('prompt_tokens', 0)} + {usage.get('completion_tokens', 0)} tokens, "
        f"prompt read in {timings.get('prompt_ms', 0):.0f} ms{speed}"
    )
