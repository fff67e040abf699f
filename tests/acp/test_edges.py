"""The edges of the agent: its stdout, its start, damaged sessions, pages, servers of tools."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import acp
import pytest
from tests.acp.editor import environment, opened
from tests.acp.model import Model, Reply
from tests.bench.made import Write, serving_in_thread

pytestmark = pytest.mark.anyio


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
