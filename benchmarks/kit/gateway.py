"""helexa itself, started for a measurement with everything on."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from kit.peers import Target, Tools
from kit.process import PROXY_CORE, Failed, Process
from kit.stub import MODEL, Stub

KEYS = 1000


def key(index: int) -> str:
    """The secret of one of the ``KEYS`` keys."""
    return f"sk-benchmark-{index:04d}"


def cortex_toml(
    nodes: Sequence[str], keys: int = KEYS, *, cap: int | None = None, lines: str = ""
) -> str:
    """A cortex.toml with ``keys`` keys in front of ``nodes``.

    Args:
        cap: Tokens that each key may spend; None is uncapped.
        lines: Further sections.
    """
    text = ["[gateway]", 'listen = "127.0.0.1:0"', 'metrics_listen = "127.0.0.1:0"']
    for index, url in enumerate(nodes):
        text += ["[[neurons]]", f'name = "node-{index}"', f'endpoint = "{url}"']
    text += ["[entitlements]", "require_auth = true"] if keys else []
    for index in range(keys):
        digest = hashlib.sha256(key(index).encode()).hexdigest()
        text += ["[[entitlements.keys]]", f'account_id = "account-{index % 100}"']
        text += [f'key_id = "key-{index}"', f'key_sha256 = "{digest}"']
        text += [] if cap is None else [f"hard_cap = {cap}"]
    return "\n".join(text) + f"\n{lines}"


def start_cortex(
    scratch: Path,
    nodes: Sequence[str],
    *,
    core: int | None = PROXY_CORE,
    keys: int = KEYS,
    cap: int | None = None,
    lines: str = "",
) -> tuple[Process, int]:
    """A gateway in front of ``nodes``; its process and port. See ``cortex_toml``."""
    config = scratch / "cortex.toml"
    config.write_text(cortex_toml(nodes, keys, cap=cap, lines=lines))
    command = [sys.executable, "-m", "helexa.cli", "cortex", f"--config={config}"]
    environ = {"XDG_STATE_HOME": str(scratch / "state")}
    process = Process(command, scratch / "cortex.log", core=core, environ=environ, ready_line=True)
    port = int(process.ready()["url"].rpartition(":")[2])
    return process, port


def cortex(tools: Tools, stub: Stub) -> Target | None:
    """cortex: keys, routing over every node, metering, metrics, access log to a file."""
    process, port = start_cortex(tools.scratch, stub.urls)
    return Target("helexa", port, process)


def wait_until_served(target: Target, model: str = MODEL, timeout: float = 60.0) -> None:
    """Until the gateway answers one chat request for ``model``.

    Raises:
        Failed: It never did; with the end of its log.
    """
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "ready?"}]})
    headers = {"content-type": "application/json", "authorization": f"Bearer {key(0)}"}
    url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
    until, last = time.monotonic() + timeout, ""
    while time.monotonic() < until and target.process.alive:
        try:
            request = urllib.request.Request(url, body.encode(), headers)
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            last = error.read().decode(errors="replace")[-500:]
        except OSError as error:
            last = str(error)
        time.sleep(0.2)
    raise Failed(f"{target.name} does not serve: {last}\n{target.process.last_words()}")
