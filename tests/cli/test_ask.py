"""``helexa ask`` against a gateway whose stream the test writes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli.served import served

from helexa.cli.ask import _Waiting, ask_command

MODELS = {
    "data": [
        {"id": "embedder", "loaded": True, "capabilities": ["embeddings"]},
        {"id": "asleep", "loaded": False},
        {"id": "awake", "loaded": True, "capabilities": ["text"]},
    ]
}


def event(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Gateway(ThreadingHTTPServer):
    answer: tuple[int, bytes] = (200, event("Hel") + event("lo.", "stop") + DONE)
    asked: tuple[dict[str, Any], ...] = ()
    listed: tuple[int, bytes] = (200, json.dumps(MODELS).encode())


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self.reply(*self.server.listed)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked += (body,)
        self.reply(*self.server.answer)

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with served(Gateway(("127.0.0.1", 0), Handler)) as gateway:
        yield gateway


def ask(gateway: Gateway, *arguments: str, stdin: str | None = None) -> Result:
    endpoint = f"http://127.0.0.1:{gateway.server_address[1]}/v1"
    return CliRunner().invoke(ask_command, ["--endpoint", endpoint, *arguments], input=stdin)


def test_the_loaded_model_that_can_chat_is_asked_and_its_answer_printed(gateway: Gateway) -> None:
    done = ask(gateway, "Say", "hello", "--system", "Be brief.", "--max-tokens", "9")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "Hello.\n", "")
    (body,) = gateway.asked
    assert body["model"] == "awake"
    assert body["max_tokens"] == 9
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello"},
    ]


def test_a_prompt_may_come_on_stdin(gateway: Gateway) -> None:
    assert ask(gateway, "--model", "m", stdin="a letter").stdout == "Hello.\n"
    assert gateway.asked[0]["messages"] == [{"role": "user", "content": "a letter"}]
    assert ask(gateway, stdin=" \n").exit_code == 2


def test_json_is_one_object_and_nothing_else(gateway: Gateway) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    gateway.answer = 200, b": keep-alive\n\n" + event("Hello.", "stop") + last + DONE
    found = json.loads(ask(gateway, "Hi", "--json").stdout)
    assert (found["answer"], found["finish_reason"], found["usage"]) == ("Hello.", "stop", usage)
    assert "3 + 2 tokens" in ask(gateway, "Hi", "--timings").stderr


def test_a_refusal_is_status_1_with_the_gateway_s_words(gateway: Gateway) -> None:
    gateway.answer = 404, b'{"error": {"message": "The model does not exist here."}}'
    done = ask(gateway, "Hi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "The model does not exist here." in done.stderr


def test_a_gateway_that_wants_a_key_is_told_of_with_the_way_to_give_one(gateway: Gateway) -> None:
    gateway.listed = 401, b'{"error": {"message": "No API key was given."}}'
    done = ask(gateway, "Hi")
    assert done.exit_code == 1
    assert "No API key was given. Pass a key that may with --key or in HELEXA_KEY." in done.stderr


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (b'data: {"error": {"message": "Its node is lost."}}\n\n', "Its node is lost."),
        (b"", "broke off"),
    ],
)
def test_an_answer_that_breaks_is_status_1_behind_what_had_come(
    gateway: Gateway, end: bytes, words: str
) -> None:
    gateway.answer = 200, event("Hel") + end
    done = ask(gateway, "Hi")
    assert (done.exit_code, done.stdout) == (1, "Hel\n")
    assert words in done.stderr


def test_an_answer_that_was_cut_says_why(gateway: Gateway) -> None:
    gateway.answer = 200, event("Hel", "length", helexa={"finish": "budget"}) + DONE
    assert ask(gateway, "Hi").stderr == "cut: budget\n"


def test_nothing_of_a_wait_is_left_beside_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    waiting = _Waiting()
    waiting.show(b'{"position": 1, "eta_s": 23.0}')
    first = "waiting for the model, place 1, ready in about 23 s"
    assert shown.getvalue() == f"{first}\r"
    waiting.show(b'{"position": 1}')
    waiting.clear()
    waiting.clear()
    second = "waiting for the model, place 1"
    expected = [first, " " * len(first), second, " " * len(second), ""]
    assert shown.getvalue().split("\r") == expected
