from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import acp
import pytest
from tests.acp.editor import Editor, connected, environment, opened
from tests.acp.model import Model, Reply
from tests.bench.made import Write, serving_in_thread

pytestmark = pytest.mark.anyio
OVERFLOW = {
    "message": "This model's maximum context length is 8000 tokens.",
    "code": "context_length_exceeded",
}


@pytest.fixture
def work(work: Path) -> Path:
    (work / "big.txt").write_text("word\n" * 4000)
    return work


async def test_a_refusal_that_passes_is_waited_for_and_said(
    model: Model, tmp_path: Path, work: Path
) -> None:
    later = {"message": "Busy.", "code": "overloaded", "retry_after_s": 0.2}
    loading = {"message": "Loading.", "code": "model_loading", "retry_after_s": 0.2}
    model.say(Reply(status=429, error=later | {"code": "rate_limit_exceeded"}),
              Reply(status=503, error=loading), "Here I am.")  # fmt: skip
    async with opened(model.url, tmp_path, work) as session:
        answer = await session.prompt("hi")
        notes = session.editor.text("agent_thought_chunk")
        assert answer.stop_reason == "end_turn"
        assert session.editor.text() == "Here I am."
        assert "Busy. Asking again in" in notes
        assert "Loading. Asking again in" in notes


async def test_a_loading_model_shows_how_far_it_is(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Warm.", comment='helexa {"progress":0.4,"position":2,"eta_s":23}'))
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        notes = session.editor.text("agent_thought_chunk")
        assert "being loaded, 40 %, place 2 in the queue, about 23 s" in notes


async def test_a_quota_that_is_spent_ends_the_turn_in_words_and_not_the_session(
    model: Model, tmp_path: Path, work: Path
) -> None:
    spent = {"message": "The budget is spent.", "code": "insufficient_quota"}
    model.say(Reply(status=429, error=spent), "Again.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "The budget is spent." in session.editor.text()
        await session.prompt("still there?")
        assert session.editor.text().endswith("Again.")
    assert len(model.asked) == 2


async def test_a_wrong_key_asks_for_authentication(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models_status = 401
    async with connected(model.url, tmp_path) as session:
        with pytest.raises(acp.RequestError) as refused:
            await session.agent.new_session(cwd=str(work), mcp_servers=[])
        assert refused.value.code == -32000
        model.models_status = 200
        await session.agent.authenticate(method_id="api-key")
        assert (await session.agent.new_session(cwd=str(work), mcp_servers=[])).session_id


async def test_an_endpoint_that_is_down_is_said_and_the_session_opens(
    tmp_path: Path, work: Path
) -> None:
    async with opened("http://127.0.0.1:1/v1", tmp_path, work) as session:
        assert "endpoint environment is skipped" in session.editor.text("agent_thought_chunk")
        answer = await session.prompt("hi")
        assert answer.stop_reason == "end_turn"
        assert "helexa up" in session.editor.text()


async def test_overflow_leads_to_compaction_and_the_turn_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    read = ("read_file", {"path": "big.txt"})
    model.say(Reply(calls=[read]), "First.", Reply(status=400, error=OVERFLOW), "Second.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("one")
        answer = await session.prompt("two")
        assert answer.stop_reason == "end_turn"
        assert session.editor.text().endswith("Second.")
        assert "Made room in the context" in session.editor.text("agent_thought_chunk")
    messages = model.asked[-1]["messages"]
    assert "left out to make room" in json.dumps(messages)
    calls = {c["id"] for m in messages for c in m.get("tool_calls", [])}
    assert calls == {m["tool_call_id"] for m in messages if m["role"] == "tool"}


async def test_a_filling_window_is_summarised_before_it_overflows(
    model: Model, tmp_path: Path, work: Path
) -> None:
    text = "x" * 6000
    model.say("a", "b", "c", "d", "The summary.", "e")
    async with opened(model.url, tmp_path, work) as session:
        for turn in range(5):
            await session.prompt(f"{turn} {text}")
    summaries = [i for i, a in enumerate(model.asked)
                 if "Summarise this conversation" in json.dumps(a["messages"][-1])]  # fmt: skip
    assert summaries
    after = model.asked[summaries[0] + 1]["messages"]
    assert "Summary of our conversation" in json.dumps(after[1])
    assert after[-1]["content"].startswith(f"{summaries[0]} ")  # the newest turn is untouched
    assert all(len(json.dumps(a["messages"])) < 8000 * 3.2 for a in model.asked)


async def test_a_cut_stream_is_said_and_the_session_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Half an ans", cut=True), "Whole.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "broke off" in session.editor.text()
        await session.prompt("again")
        assert session.editor.text().endswith("Whole.")
    assert len(model.asked) == 2  # what was shown is never asked for twice


async def test_a_stream_that_breaks_before_anything_came_is_asked_for_again(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(cut=True), "Here.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert session.editor.text() == "Here."


@pytest.mark.parametrize("arguments", ['{"path": "big.txt",}', '{"path": "big.txt"'])
async def test_arguments_that_are_nearly_json_are_repaired(
    model: Model, tmp_path: Path, work: Path, arguments: str
) -> None:
    model.say(Reply(calls=[("list_dir", arguments.replace("big.txt", "."))]), "Fine.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
    assert "big.txt" in model.asked[1]["messages"][-1]["content"]


async def test_garbage_and_unknown_tools_are_told_to_the_model(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(calls=[("read_file", "not json at all"), ("fly", {}),
                           ("edit_file", {"path": "big.txt", "edits": []})]), "Sorry.")  # fmt: skip
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
    results = [m["content"] for m in model.asked[1]["messages"] if m["role"] == "tool"]
    assert "no JSON object" in results[0]
    assert "there is no tool 'fly'" in results[1]
    assert "must be a list" in results[2]


async def test_the_same_calls_again_and_again_are_stopped(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(*[Reply(calls=[("list_dir", {})]) for _ in range(10)])
    async with opened(model.url, tmp_path, work) as session:
        answer = await session.prompt("hi")
        assert answer.stop_reason == "end_turn"
        assert "without getting anywhere" in session.editor.text()
    assert len(model.asked) == 4


async def test_rounds_are_bounded(model: Model, tmp_path: Path, work: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("max_rounds = 3\n")
    model.say(*[Reply(calls=[("grep", {"pattern": str(i)})]) for i in range(9)])
    async with opened(model.url, tmp_path, work, HELEXA_ACP_CONFIG_PATH=str(config)) as session:
        assert (await session.prompt("hi")).stop_reason == "max_turn_requests"
    assert len(model.asked) == 3


async def test_a_model_without_tools_calls_them_in_plain_text(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models = [{"id": "m", "limit": {"context": 8000}, "tool_call": False}]
    call = '<tool_call>{"name": "list_dir", "arguments": {"path": "."},}</tool_call>'
    model.say(Reply(f"Let me look.{call}"), "There is big.txt.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("what is there?")
        assert session.editor.text() == "Let me look.There is big.txt."
        assert next(iter(session.editor.calls().values()))["status"] == "completed"
    assert "tools" not in model.asked[0]
    assert "list_dir" in model.asked[0]["messages"][0]["content"]
    assert "big.txt" in model.asked[1]["messages"][-1]["content"]


async def test_an_mcp_server_of_the_editor_brings_its_tools(
    model: Model, tmp_path: Path, work: Path
) -> None:
    pytest.importorskip("mcp")
    script = tmp_path / "server.py"
    script.write_text(
        "from mcp.server import MCPServer\nserver = MCPServer('sums')\n"
        "@server.tool()\ndef add(a: int, b: int) -> int:\n    return a + b\n"
        "server.run('stdio')\n"
    )
    good = acp.schema.McpServerStdio(
        name="my sums", command=sys.executable, args=[str(script)], env=[]
    )
    bad = acp.schema.McpServerStdio(name="broken", command="/no/such/program", args=[], env=[])
    model.say(Reply(calls=[("my_sums__add", {"a": 2, "b": 3})]), "Five.")
    async with opened(model.url, tmp_path, work, mcp_servers=[good, bad]) as session:
        await session.prompt("add")
        assert "MCP server broken cannot be used" in session.editor.text("agent_thought_chunk")
        assert len(session.editor.asked) == 1
    assert model.asked[1]["messages"][-1]["content"] == "5"


async def test_a_file_that_changed_between_the_diff_and_the_write_is_left_alone(
    model: Model, tmp_path: Path, work: Path
) -> None:
    path = work / "a.txt"
    path.write_text("one")

    def decide(_call: object) -> str:
        path.write_text("two")
        return "allow_once"

    edit = {"path": "a.txt", "edits": [{"old_text": "one", "new_text": "three"}]}
    model.say(Reply(calls=[("edit_file", edit)]), "Oh.")
    async with opened(model.url, tmp_path, work, Editor(answer=decide)) as session:
        await session.prompt("edit")
    assert "changed meanwhile" in model.asked[1]["messages"][-1]["content"]
    assert path.read_text() == "two"


async def run_raw(lines: list[str], env: dict[str, str], expected: int) -> list[dict[str, object]]:
    """What comes for ``lines``: so many answers, and nothing more when the input ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "helexa.cli", "acp", env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(lines).encode())
    async with asyncio.timeout(60):
        answers = [json.loads(await process.stdout.readline()) for _ in range(expected)]
        process.stdin.close()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0
    return answers


async def test_nothing_but_protocol_is_on_stdout_whatever_comes_in(tmp_path: Path) -> None:
    lines = [
        "this is no json\n", "[1, 2]\n", '"text"\n', "{}\n", "\n",
        '{"jsonrpc":"2.0","id":1,"method":"no/such"}\n',
        '{"jsonrpc":"2.0","id":2,"method":"session/prompt","params":{"sessionId":"nope"}}\n',
        '{"jsonrpc":"2.0","id":3,"method":"session/new","params":{"cwd":"relative"}}\n',
        '{"jsonrpc":"2.0","id":4,"method":"session/load","params":{"sessionId":"../../etc"}}\n',
        '{"jsonrpc":"2.0","id":5,"method":"initialize","params":[]}\n',
        '{"jsonrpc":"2.0","method":"session/cancel","params":{}}\n',
        '{"jsonrpc":"2.0","method":"unknown"}\n',
        '{"jsonrpc":"2.0","id":{},"method":"initialize"}\n',
        '{"jsonrpc":"2.0","id":6,"method":[]}\n',
        '{"jsonrpc":"2.0","id":[1],"result":1}\n',
        '{"jsonrpc":"2.0","method":"$/cancel_request","params":[1]}\n',
        '{"jsonrpc":"2.0","method":"session/cancel","params":[1]}\n',
        "[" * 5000 + "\n",
        '{"jsonrpc":"2.0","id":7,"method":"no/such"}\n',
    ]  # fmt: skip
    answers = await run_raw(lines, environment(tmp_path, "http://127.0.0.1:1"), 13)
    codes = {a.get("id"): a["error"]["code"] for a in answers}  # type: ignore[index]
    assert codes[1] == -32601
    assert codes[2] == -32002
    assert codes[3] == codes[5] == -32602
    assert codes[4] == -32002
    assert codes[7] == -32601
    assert sum(a.get("id") is None for a in answers) >= 7


async def test_initialize_is_answered_soon_after_the_start(tmp_path: Path) -> None:
    line = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}\n'
    env = environment(tmp_path, "http://127.0.0.1:1")
    took, floor = list[float](), list[float]()
    while not took or (min(took) > 8 * min(floor) and len(took) < 10):  # others use this machine
        started = time.perf_counter()
        (answer,) = await run_raw([line], env, 1)
        took.append(time.perf_counter() - started)
        assert answer["result"]["protocolVersion"] == 1  # type: ignore[index]
        started = time.perf_counter()
        await (await asyncio.create_subprocess_exec(sys.executable, "-c", "import asyncio")).wait()
        floor.append(time.perf_counter() - started)
    assert min(took) <= 8 * min(floor)  # the bar in seconds is in the benchmarks


async def test_a_damaged_session_is_refused_and_hides_no_others(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        folder = tmp_path / "helexa-acp" / "sessions"
        (folder / "broken.json").write_text("{")
        assert len((await session.agent.list_sessions()).sessions) == 1
        with pytest.raises(acp.RequestError) as refused:
            await session.agent.load_session(cwd=str(work), session_id="broken", mcp_servers=[])
        assert "cannot be read" in str(refused.value)
        assert oct(folder.stat().st_mode)[-3:] == "700"


async def test_a_cancelled_request_is_answered_as_cancelled_and_the_session_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("I will", hold=200), "Yes.")
    async with opened(model.url, tmp_path, work) as session:
        connection = session.agent._conn
        content = [{"type": "text", "text": "go"}]
        params = {"sessionId": session.session_id, "prompt": content}
        running = asyncio.ensure_future(connection.send_request("session/prompt", params))
        await session.editor.until(session.editor.text)
        number = max(m["id"] for way, m in session.messages if way == "outgoing" and "id" in m)
        await connection.send_notification("$/cancel_request", {"requestId": number})
        with pytest.raises(acp.RequestError) as cancelled:
            await asyncio.wait_for(running, 60)
        assert cancelled.value.code == -32800
        assert (await session.prompt("still there?")).stop_reason == "end_turn"
        assert session.editor.text().endswith("Yes.")


async def test_a_page_is_fetched_as_text_after_permission(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async def page(_body: dict[str, object], write: Write) -> None:
        text = b"<html><head><title>x</title></head><body><p>Hello <b>you</b></p></body></html>"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
        await write(head + b"content-length: %d\r\n\r\n" % len(text) + text)

    with serving_in_thread(page) as url:
        model.say(Reply(calls=[("fetch_url", {"url": f"{url}/a"})]), "Read.")
        async with opened(model.url, tmp_path, work) as session:
            await session.prompt("fetch it")
            assert len(session.editor.asked) == 1
    assert model.asked[1]["messages"][-1]["content"] == "Hello you"


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_mcp_servers_over_the_network_bring_their_tools_too(
    model: Model, tmp_path: Path, work: Path, kind: str
) -> None:
    pytest.importorskip("mcp")
    transport = "streamable-http" if kind == "http" else "sse"
    script = tmp_path / "server.py"
    script.write_text(
        "import socket, sys\nfrom mcp.server import MCPServer\n"
        "from mcp.server.mcpserver import Context\n"
        # The port is kept for the server, which may bind it as well.
        "mine = socket.socket()\n"
        "mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "mine.bind(('127.0.0.1', 0))\n"
        "port = mine.getsockname()[1]\nserver = MCPServer('sums')\n"
        "@server.tool()\ndef add(a: int, b: int, context: Context) -> str:\n"
        "    return f'{a + b} for {context.headers.get(\"x-who\")}'\n"
        "print(port, flush=True)\n"
        f"server.run('{transport}', host='127.0.0.1', port=port)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        await reachable(port)
        path = "mcp" if kind == "http" else "sse"
        server = {"http": acp.schema.HttpMcpServer, "sse": acp.schema.SseMcpServer}[kind](
            type=kind,
            name="sums",
            url=f"http://127.0.0.1:{port}/{path}",
            headers=[acp.schema.HttpHeader(name="x-who", value="me")],
        )
        model.say(Reply(calls=[("sums__add", {"a": 2, "b": 3})]), "Five.")
        async with opened(model.url, tmp_path, work, mcp_servers=[server]) as session:
            await session.prompt("add")
    finally:
        process.kill()
        await process.wait()
    assert model.asked[1]["messages"][-1]["content"] == "5 for me"


async def reachable(port: int) -> None:
    """Wait until somebody listens there."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def test_prices_of_the_catalogue_become_the_cost_of_the_session(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models[0]["cost"] = {"input": 10.0, "output": 100.0}
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        usage = [u for u in session.editor.updates if u.session_update == "usage_update"][-1]
        assert usage.cost.currency == "USD"
        assert usage.cost.amount == pytest.approx((100 * 10 + 7 * 100) / 1e6)
